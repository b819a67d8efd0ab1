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
    (tmp_path / "plots").mkdir()
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
        ((*EXAMPLE, "--plot", "nowhere/budget.svg"), "in a folder that does not exist: make nowhere first"),
        ((*EXAMPLE, "--records-per-person", "2"), "cannot be given with --unit record: give --per-person"),
        (("--unit", "both", "--per-person", "5"), "give --records-per-person or --clients-per-person"),
        (
            ("--batch", "10", "--records", "1000", "--noise", "1", "--rounds", "3", "--epochs", "inf"),
            "--epochs inf: give a positive number",
        ),
        (("--rate", "0.01", "--noise", "1e-300", "--steps", "10"), "--noise 1e-300 is refused by runs"),
        (("--rate", "1e-300", "--noise", "1", "--steps", "10"), "--rate 1e-300 is below"),
        (("--epsilon", "1e-9", "--rate", "0.1", "--steps", "10"), "--epsilon 1e-09 is below"),
        ((*EXAMPLE[:-1], "1e-13"), "--delta 1e-13 is refused by runs"),
        (("--rate", "0.01", "--noise", "1", "--steps", str(10**12)), "too many: give 100000000 or fewer"),
        (
            ("--unit", "client", "--sampler", "fixed", "--cohort", "10", "--clients", "100", "--rounds", "20",
             "--noise", "1", "--participation", "5"),
            "cannot leave a client out after 5 rounds",
        ),
    ],
    ids=["missing", "nothing missing", "out of reach", "other level", "other level too", "format", "range",
         "folder", "one level", "both levels", "epochs", "noise", "rate", "epsilon", "delta", "steps", "cap"],
)  # fmt: skip
def test_a_wrong_request_says_what_to_change_and_exits_with_one(fedsafe, words, message):
    command = fedsafe("budget", *words, "--json")
    assert command.code == 1
    assert message in command.err
    assert command.err.count("\n") == 1
    assert command.out == ""


def test_a_refused_plot_leaves_no_folder(fedsafe, tmp_path):
    assert fedsafe("budget", *EXAMPLE, "--plot", "nowhere/budget.svg").code == 1
    assert not (tmp_path / "nowhere").exists()


def test_no_bound_is_null_and_not_a_lack_of_noise(fedsafe):
    words = ("budget", "--rate", "0.01", "--noise", "1", "--steps", "100", "--per-person", "2000")
    found = printed(fedsafe(*words, "--json"))
    assert found["epsilon"] is None
    assert found["claim"]["epsilon"] is None
    assert "no finite bound on epsilon was found" in found["claim"]["statement"]
    assert "without clip and noise" not in found["claim"]["statement"]
    text = fedsafe(*words).out
    assert "no finite bound found" in text
    assert "without clip and noise" not in text


def test_each_level_has_a_number_per_person_of_its_own(fedsafe):
    found = printed(
        fedsafe(
            "budget", "--unit", "both", "--rounds", "10", "--local-steps", "4", "--rate", "0.05", "--noise", "2",
            "--cohort", "50", "--clients", "500", "--client-noise", "8", "--records-per-person", "2",
            "--clients-per-person", "3", "--json",
        )
    )  # fmt: skip
    assert [found[unit]["per_person"] for unit in ("record", "client")] == [2, 3]
    assumed = [claim["assumptions"][0] for claim in found["claims"]]
    assert assumed == ["at most 2 records in one client per person", "at most 3 clients per person"]
