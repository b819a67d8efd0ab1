"""Evaluation by the clients in a whole run: off by default, planned and recorded where it is on, and resumed."""

import json
import math
import shutil

import pytest
from tiny_federation import config

from fedsafe.errors import ConfigError
from fedsafe.runs.resume import resume
from fedsafe.runs.run import run

SCORE = "federated_score"


def evaluated(**changes):
    values = {
        "rounds": 4,
        "federation__client_validation": 0.3,
        "federation__evaluation": {"every": 2, "epsilon": 0.05},
        "privacy__noise_key": "seed",
        **changes,
    }
    return config(**values)


def lines(path):
    """Of the record, but for the ledger's heads: a ledger that is ahead of the record keeps its head."""
    read = [json.loads(line) for line in (path / "record.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "ledger"} for line in read]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(evaluated(), out=tmp_path_factory.mktemp("evaluated") / "run")


def test_nothing_is_evaluated_where_nobody_asked(tmp_path):
    result = run(config(), out=tmp_path / "run")
    assert SCORE not in result.rounds().columns
    assert "evaluation" not in result.start.plan


def test_the_rounds_that_are_due_have_a_score_and_no_other(finished):
    scores = finished.rounds()[SCORE]
    assert scores.isna().tolist() == [True, False, True, False]
    assert scores.nunique() == 2


def test_both_targets_hold_with_the_evaluations_in(finished):
    for claim in finished.claims:
        assert claim["epsilon"] <= 0.1
        assert "evaluations with cohorts of their own" in claim["horizon"]
    assert finished.rounds()["epsilon_client"].iloc[-1] == finished.claims[1]["epsilon"]


def test_scores_without_noise_are_listed_as_not_covered(tmp_path):
    result = run(evaluated(federation__evaluation={"every": 2, "noised": False}), out=tmp_path / "run")
    for claim in result.claims:
        assert any("score of each client that is evaluated" in phrase for phrase in claim["not_covered"])
    # Without noise a mean of shares of right answers, over a public constant.
    score = result.rounds()[SCORE].iloc[-1]
    assert 0.0 < score < 2.0


def test_without_privacy_the_score_is_a_mean_over_the_expected_cohort(tmp_path):
    """Everybody is asked, so the mean of the clients' accuracies is known."""
    values = evaluated(
        federation__cohort__rate=1.0,
        federation__evaluation={"every": 4, "noised": False},
        privacy__record__epsilon=math.inf,
        privacy__client__epsilon=math.inf,
        data__evaluation="client_validation",
        federation__partition={"name": "iid"},
    )
    result = run(values, out=tmp_path / "run")
    last = result.rounds().iloc[-1]
    # Clients of an even cut have equally many records, so the mean of means is the accuracy over all of them.
    assert last[SCORE] == pytest.approx(last["accuracy"], abs=1e-6)


def test_an_evaluation_needs_records_to_evaluate_on(tmp_path):
    with pytest.raises(ConfigError, match="client_validation"):
        run(evaluated(federation__client_validation=0.0), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kept", [2, 3])
def test_a_score_survives_a_kill_between_the_model_and_its_record_line(finished, tmp_path, kept):
    """The checkpoint of a round is there, its line is not: the score is not released a second time."""
    path = tmp_path / "run"
    shutil.copytree(finished.path, path)
    whole = lines(finished.path)
    text = (path / "record.jsonl").read_text().splitlines(keepends=True)
    (path / "record.jsonl").write_text("".join(text[:kept]))  # the start line, and kept - 1 rounds
    for round in range(kept + 1, 5):
        (path / f"checkpoints/round-{round:05d}.safetensors").unlink()
    again = lines(resume(path).path)
    assert again[:-1] == whole[:-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"federation__evaluation": {"every": 5}}, "nothing would be evaluated"),
        (
            {"privacy__record__epsilon": math.inf, "privacy__client__epsilon": math.inf},
            "neither level has a target",
        ),
    ],
)
def test_an_evaluation_that_could_not_be_what_it_is_called_is_refused(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run(evaluated(**changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("unit", ["record", "client"])
def test_a_score_is_called_noised_only_by_the_claim_of_a_level_that_adds_noise(unit, tmp_path):
    result = run(evaluated(**{f"privacy__{unit}__epsilon": math.inf}), out=tmp_path / "run")
    for claim in result.claims:
        assert ("noised" in claim["release"]) == (claim["unit"] != unit)


def test_the_deviation_stands_beside_the_score(finished):
    rounds = finished.rounds()
    assert (rounds["federated_score_deviation"].isna() == rounds[SCORE].isna()).all()
    assert rounds["federated_score_deviation"].iloc[-1] > 0.1
