"""``fedsafe budget`` prints a number that can be defended, or what to change."""

import json

import pytest

CLAIM_KEYS = {
    "unit", "epsilon", "delta", "adjacency", "adversary", "release", "sampler", "accountant", "horizon",
    "regime", "randomness", "assumptions", "not_covered",
}  # fmt: skip
EXAMPLE = ("--unit", "record", "--rate", "0.01", "--noise", "0.7", "--steps", "120", "--delta", "1e-5")


def printed(command):
    assert command.code == 0, command.err
    assert command.out.count("\n") == 1
    return json.loads(command.out, parse_constant=pytest.fail)


def test_the_example_costs_what_the_literature_says(fedsafe):
    """TensorFlow Privacy, compute_dp_sgd_privacy_test: 2.4612381 by PLD."""
    found = printed(fedsafe("budget", *EXAMPLE, "--json"))
    assert 2.4612 - 1e-4 <= found["epsilon"] <= 2.4612 + 2.5e-3
    assert set(found["claim"]) >= CLAIM_KEYS
    assert found["claim"]["epsilon"] == found["epsilon"]
    assert found["solved_for"] == "epsilon"
    assert not found["fallback"]
    assert not found["delta_checked"]
    assert "delta was not checked" in found["warnings"][0]


def test_without_noise_it_solves_for_it(fedsafe):
    words = [word for word in EXAMPLE if word not in ("--noise", "0.7")]
    found = printed(fedsafe("budget", *words, "--epsilon", "2.4625", "--json"))
    assert found["solved_for"] == "noise"
    assert found["noise"] == pytest.approx(0.7, abs=2e-3)
    assert 2.45 < found["epsilon"] <= 2.4625


def test_both_levels_are_two_claims(fedsafe):
    found = printed(
        fedsafe(
            "budget", "--unit", "both", "--rounds", "30", "--local-steps", "4", "--rate", "0.05", "--noise", "2",
            "--cohort", "50", "--clients", "500", "--client-epsilon", "4", "--client-delta", "1e-3", "--json",
        )
    )  # fmt: skip
    assert [claim["unit"] for claim in found["claims"]] == ["record", "client"]
    assert found["record"]["solved_for"] == "epsilon"
    assert found["client"]["solved_for"] == "noise"
    assert found["epsilon"]["client"] <= 4.0
    assert found["client"]["delta_checked"]
    assert found["client"]["warnings"] == []
    assert found["record"]["claim"]["group_epsilon"] > found["record"]["epsilon"]


def test_a_person_gets_a_table_a_paragraph_and_warnings(fedsafe, tmp_path):
    command = fedsafe(
        "budget", "--unit", "client", "--cohort", "30", "--clients", "300", "--rounds", "40", "--noise", "2",
        "--delta", "0.01", "--plot", "plots/budget.svg",
    )  # fmt: skip
    assert command.code == 0, command.err
    assert "solved for" in command.out
    assert "At the client level, the run is (" in command.out
    assert "warning (client): delta 0.01 is not below 1/300" in command.out
    assert (tmp_path / "plots" / "budget.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rate", "0.01", "--delta", "1e-5"), "give all but one of"),
        ((*EXAMPLE, "--epsilon", "3"), "nothing is missing"),
        (("--rate", "1", "--steps", "1000000", "--epsilon", "0.0001"), "no --noise will do"),
        ((*EXAMPLE, "--cohort", "3"), "--cohort cannot be given with --unit record"),
        (("--unit", "client", "--rounds", "3", "--batch", "8"), "--batch cannot be given with --unit client"),
        ((*EXAMPLE, "--plot", "budget.txt"), "end it in .svg"),
        (("--rate", "0.01", "--noise", "0.7", "--steps", "0"), "1 or more"),
    ],
    ids=["missing", "nothing missing", "out of reach", "other level", "other level too", "format", "range"],
)
def test_a_wrong_request_says_what_to_change_and_exits_with_one(fedsafe, words, message):
    command = fedsafe("budget", *words, "--json")
    assert command.code == 1
    assert message in command.err
    assert command.err.count("\n") == 1
    assert command.out == ""
