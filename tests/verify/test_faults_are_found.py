"""Each planted fault is found by the check that is for it, and what the faults are mutations of passes all of them."""

import json

import pytest
from claims_of_faults import FAULTS, HERE, PLANTED, RIGHT

from fedsafe.verify import make_claim, verify

RUNS = 20


@pytest.mark.parametrize("target", PLANTED)
def test_a_planted_fault_is_found(target):
    claim, group, check = PLANTED[target]
    report = verify(target.strip(), make_claim(claim), runs=RUNS, path=FAULTS, only=[group])
    found = {outcome.check: outcome for outcome in report.failures}
    assert check in found, "\n".join(report.lines())
    assert found[check].claimed
    assert found[check].seen
    assert found[check].source


@pytest.mark.parametrize("target", RIGHT)
def test_what_the_faults_are_mutations_of_passes(target):
    report = verify(target, make_claim(RIGHT[target]), runs=8, path=FAULTS)
    assert not report.failures, "\n".join(report.lines())


@pytest.mark.parametrize("name", ["noisy_sum:NoisySum", "dp_sgd_client:app"])
def test_the_correct_apps_of_the_guide_pass(name):
    claim = HERE / "correct" / f"{name.split(':')[0]}.toml"
    report = verify(name, claim, runs=8, path=HERE / "correct")
    assert not report.failures, "\n".join(report.lines())
    assert json.dumps(report.to_json(), allow_nan=False)
