"""Faults that were planted by somebody who had not seen the checks are found, and their corrected versions pass."""

import pytest
from claims_of_faults import HERE

from fedsafe.verify import verify

ELSEWHERE = HERE / "faults_elsewhere"
RUNS = 12
# Faulty target: the group of checks that finds it, and the check that must fail.
FAULTY = {
    "half_noise.server:faulty": ("noise", "noise scale"),
    "realised_divisor.server:faulty": ("neighbours", "absent clients"),
    "stream_reused.server:faulty": ("reuse", "noise reuse"),
    "exact_counts.client:app": ("metrics", "metrics and counts"),
    "exact_counts.client:counts_only": ("metrics", "metrics and counts"),
    "no_clip.client:app": ("clip", "one record among many"),
}


@pytest.mark.parametrize("target", FAULTY)
def test_a_fault_from_elsewhere_is_found(target):
    group, check = FAULTY[target]
    claim = ELSEWHERE / target.split(".")[0] / "claim.toml"
    report = verify(target, claim, runs=RUNS, path=ELSEWHERE, only=[group])
    assert check in {outcome.check for outcome in report.failures}, "\n".join(report.lines())


@pytest.mark.parametrize("target", FAULTY)
def test_the_corrected_version_passes(target):
    """The same checks; ``benchmarks/verify_rates.py`` makes all of them."""
    group, _ = FAULTY[target]
    claim = ELSEWHERE / target.split(".")[0] / "claim.toml"
    report = verify(f"{target.split(':')[0]}:corrected", claim, runs=RUNS, path=ELSEWHERE, only=[group])
    assert not report.failures, "\n".join(report.lines())
