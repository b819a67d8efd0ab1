"""Rules that are more than a noisy sum: each planted fault is found, what is right passes, our own plans as well."""

import pytest
from claims_of_faults import AVERAGE, FAULTS, MECHANISMS, RIGHT_MECHANISMS
from tiny_federation import parts

from fedsafe.errors import ConfigError
from fedsafe.runs.compose import calibrate
from fedsafe.verify import check_plan, make_claim, verify

RUNS = 12
PLAN = {
    "federation__partition": {"name": "iid"},
    "federation__clients": 24,
    "federation__cohort": {"rate": 0.4},
    "rounds": 6,
    "privacy__record__epsilon": float("inf"),
    "privacy__client__epsilon": 8.0,
    "privacy__client__delta": 1e-3,
}


@pytest.mark.parametrize("fault", MECHANISMS)
def test_a_planted_fault_is_found(fault):
    target, claim, group, check = MECHANISMS[fault]
    report = verify(target, make_claim(claim), runs=RUNS, path=FAULTS, only=[group])
    found = {outcome.check: outcome for outcome in report.failures}
    assert check in found, "\n".join(report.lines())
    assert found[check].source


@pytest.mark.parametrize("target", RIGHT_MECHANISMS)
def test_what_the_faults_are_mutations_of_passes(target):
    """The checks that find them; ``benchmarks/verify_rates.py`` makes all."""
    groups = ["epsilon", "bad", "uploads", "banded", "distributed"]
    report = verify(target, make_claim(RIGHT_MECHANISMS[target]), runs=8, path=FAULTS, only=groups)
    assert not report.failures, "\n".join(report.lines())


CAPPED = {"name": "capped_mean", "cap": 30, "mean_weight": 0.8}
SKELLAM = {"name": "distributed_mean", "minimum": 3, "law": "skellam", "rotated": False}


@pytest.mark.parametrize(
    ("rule", "group", "checked"),
    [
        (CAPPED, "neighbours", {"weights", "impossible counts of examples"}),
        ("local_gaussian", "uploads", {"noise of each client", "clip of each upload"}),
        ({"name": "banded_mean", "bands": 2}, "banded", {"noise over rounds", "clients stay away"}),
        (SKELLAM, "distributed", {"share of each client", "too few survivors", "no wrapping around"}),
    ],
)
def test_plans_of_fedsafe_pass(rule, group, checked):
    of = parts(**PLAN, server__aggregator=rule)
    report = check_plan(of, calibrate(of), name="tiny", runs=8, only=["epsilon", group])
    assert not report.failures, "\n".join(report.lines())
    assert checked | {"claimed epsilon"} <= {o.check for o in report.outcomes if o.status == "pass"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "capped"}, "needs its cap"),
        ({"cap": 10}, "no other has one"),
        ({"mechanism": "banded"}, r"needs \[banded\]"),
        ({"distributed": {"minimum": 3}}, "no other has one"),
        ({"mechanism": "banded", "banded": {}}, "bands or its coefficients"),
        ({"mechanism": "banded", "banded": {"bands": 4, "separation": 2}}, "raise it"),
        ({"mechanism": "distributed", "distributed": {"minimum": 2, "corrupt": 2}}, "raise minimum"),
        ({"mechanism": "local", "adaptive_clip": {"noise": 2.0}}, "fixed clip"),
    ],
)
def test_a_claim_that_does_not_fit_its_mechanism_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        make_claim({**AVERAGE, **changes})
