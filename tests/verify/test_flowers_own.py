"""The known faults of Flower 1.42's own strategies, and of its documented Opacus client, are found."""

import pytest
from claims_of_faults import HERE

from fedsafe.verify import make_claim, verify

FIXED = {
    "level": "client",
    "clip": 1.0,
    "noise": 1.0,
    "sampler": "fixed",
    "size": 20,
    "population": 40,
    "rounds": 10,
}
ADAPTIVE = {**FIXED, "adaptive_clip": {"quantile": 0.5, "learning_rate": 0.2, "noise": 1.0}}
OPACUS = {
    "level": "record",
    "clip": 1.0,
    "noise": 1.0,
    "sampler": "poisson",
    "rate": 0.25,
    "population": 120,
    "steps": 4,
    "rounds": 3,
    "learning_rate": 0.1,
    "delta": 1e-5,
    "epsilon": 6.45,
    "metrics": ["num-examples"],
    "epsilon_metric": "epsilon",
    "model": "opacus_client:Net",
    "client": {"data": "opacus_client:load_data", "learning_rate_key": "lr"},
    "run_config": {"lr": 0.1},
}
OF_BOTH = {
    "weights",
    "absent clients",
    "one client sends a NaN",
    "one client sends infinite values",
    "one client sends zeros",
    "one client sends an error",
    "one client sends several ArrayRecords",
    "impossible counts of examples",
    "metrics and counts",
}
OF_ADAPTIVE = {
    "noise scale",
    "adaptive clip falls where no update reaches it",
    "adaptive clip rises where every update exceeds it",
    "noise follows the clip",
}


@pytest.mark.parametrize(
    ("strategy", "claim", "mod", "faults"),
    [
        ("server_side_fixed", FIXED, None, OF_BOTH),
        ("client_side_fixed", FIXED, "fixedclipping_mod", OF_BOTH),
        ("server_side_adaptive", ADAPTIVE, None, OF_BOTH | OF_ADAPTIVE),
        ("client_side_adaptive", ADAPTIVE, "adaptiveclipping_mod", OF_BOTH | OF_ADAPTIVE),
    ],
)
def test_flowers_strategies_have_the_faults_that_are_known_of_them(strategy, claim, mod, faults):
    mods = [] if mod is None else [f"flwr.clientapp.mod:{mod}"]
    report = verify(
        f"wrapped_averages:{strategy}",
        make_claim({**claim, "strategy": {"mods": mods}}),
        runs=8,
        path=HERE / "flowers_own",
        only=["noise", "neighbours", "bad", "metrics", "adaptive"],
    )
    found = {outcome.check: outcome for outcome in report.failures}
    # One fault may show in a second check, but nothing else is accused.
    assert faults <= set(found) <= faults | {"noise in each tensor"}, "\n".join(report.lines())
    if claim is ADAPTIVE:
        assert "what the clip becomes after the round" in found["noise scale"].seen


def test_flowers_opacus_client_forgets_its_rounds_and_lets_nan_pass():
    report = verify(
        "opacus_client:app",
        make_claim(OPACUS),
        runs=8,
        path=HERE / "flowers_own",
        only=["noise", "bad", "accountant"],
    )
    found = {outcome.check for outcome in report.failures}
    assert found == {"records with NaN", "records with infinite values", "accountant over rounds"}, "\n".join(
        report.lines()
    )
