"""A failed `must` keeps the last accepted model or stops the run, and a resumed run decides the same."""

import json
import shutil

import numpy as np
import pytest
import tiny_federation
from tiny_federation import config

from fedsafe.assess import Cost
from fedsafe.errors import RecordError
from fedsafe.findings import Metric, Pairs, estimate, register_metric
from fedsafe.records import Round
from fedsafe.runs import Run, make_config, resume, run
from fedsafe.runs.commit import Commit
from fedsafe.runs.compose import compose
from fedsafe.runs.planning import uncovered
from fedsafe.store import RunFolder

ROUND = register_metric(
    Metric(name="made.round", unit="rounds", direction="none", description="Which round it is.")
).name
GOOD = {"metric": ROUND, "op": "<=", "threshold": 4}
PLAIN = {"privacy__noise_key": "seed", "rounds": 6, "assess__every": 2}


class Rounds:
    """Measures in which round it is: a requirement on it fails when one likes."""

    name = "made"

    def plan(self, subject, tier):
        return Cost(description="counts")

    def __call__(self, subject, *, rng, tier):
        return [estimate(ROUND, float(subject.round), bound="exact")]


def judged(*rules, **more):
    assessors = ["performance", f"{__name__}:Rounds"]
    return config(**PLAIN, assess__assessors=assessors, assess__require=list(rules), **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Accepts rounds 2 and 4, and refuses round 6."""
    return run(judged(GOOD), out=tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    """Nothing is required."""
    return run(judged(), out=tmp_path_factory.mktemp("runs") / "free")


def rounds_of(path):
    return [line for line in RunFolder.open(path).record() if isinstance(line, Round)]


def accepted(path):
    return [line.accepted for line in rounds_of(path)]


def changes(path):
    found = RunFolder.open(path).read("findings.jsonl")
    return [line for line in found if line["metric"] == "comparison.accuracy_change"]


def test_every_assessed_model_is_accepted_where_nothing_is_required(free):
    assert accepted(free.path) == [None, 2, 2, 4, 4, 6]
    assert (free.accepted, free.end.accepted) == (6, 6)
    assert free.end.checkpoint == "checkpoints/round-00006.safetensors"


def test_a_failed_must_keeps_the_last_accepted_model_and_training_goes_on(whole, free):
    assert accepted(whole.path) == [None, 2, 2, 4, 4, 4]
    assert (whole.end.status, whole.end.rounds, whole.end.accepted) == ("completed", 6, 4)
    # The figures are those of the model to release.
    assert whole.metrics == rounds_of(whole.path)[3].metrics
    assert whole.end.accuracy == whole.metrics["accuracy"]
    # No model was taken back: the parameters are those of a run without requirements.
    digests = [[line.parameters_sha256 for line in rounds_of(each.path)] for each in (whole, free)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("severity", ["must", "should"])
def test_only_a_failed_must_stops_a_run_that_is_told_to_stop(tmp_path, severity):
    rule = {**GOOD, "threshold": 3, "severity": severity}
    done = run(judged(rule, assess__on_failure="stop"), out=tmp_path / "run")
    if severity == "should":
        assert (done.end.rounds, done.end.accepted) == (6, 6)
        return
    assert (done.end.status, done.end.rounds, done.end.accepted) == ("stopped", 4, 2)
    assert "assess.on_failure = 'stop': made.round <= 3 fails in round 4" in done.end.reason


def test_what_is_undecided_is_not_accepted_and_stops_nothing(tmp_path):
    # Sixty records cannot tell within a hundredth.
    rule = {"metric": "performance.accuracy", "op": ">=", "threshold": 0.001, "confidence": 0.9999}
    lost = {"metric": "fairness.accuracy", "op": ">=", "threshold": 0.1}
    done = run(judged(rule, lost, assess__on_failure="stop"), out=tmp_path / "run")
    assert (done.end.status, done.end.rounds, done.end.accepted) == ("completed", 6, None)
    assert done.end.checkpoint is None
    assert done.metrics == rounds_of(done.path)[-1].metrics
    with pytest.raises(RecordError, match="accepted no model"):
        done.model()


def test_models_are_compared_with_the_last_accepted_one(tmp_path):
    done = run(judged({**GOOD, "threshold": 2}), out=tmp_path / "run")
    first, second, third = changes(done.path)
    assert first["status"] == "not_applicable"
    x, y = done_records()
    now = predict(done.model(6), x) == y
    then = predict(done.model(2), x) == y  # round 4 was refused
    assert third["detail"]["counts"] == Pairs.of(now, then).counts
    assert second["where"] == {"of": "performance.accuracy"}


def done_records():
    examples = tiny_federation.task().evaluation
    return examples.x, examples.y


def predict(module, x):
    import torch

    with torch.no_grad():
        return (module(torch.from_numpy(x))[:, 0] > 0).numpy()


def test_a_look_is_judged_at_its_share_of_the_confidence(tmp_path, whole):
    asked = [line["judged_confidence"] for line in RunFolder.open(whole.path).read("requirements.jsonl")]
    assert asked == pytest.approx([1 - 0.05 / 4, 1 - 0.05 / 4, 1 - 0.05 / 2])
    alone = run(judged(GOOD, assess__alpha_spending="none"), out=tmp_path / "alone")
    asked = [line["judged_confidence"] for line in RunFolder.open(alone.path).read("requirements.jsonl")]
    assert asked == [0.95] * 3


class Killed(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize(("crash", "before"), [(2, "record"), (3, "end"), (4, "record"), (4, "end")])
def test_a_resumed_run_accepts_and_compares_as_if_it_had_not_stopped(
    tmp_path, monkeypatch, whole, crash, before
):
    settings = judged(GOOD)
    append, record = RunFolder.append_record, Commit.record

    def die_before_the_line(self, line):
        if isinstance(line, Round) and line.round == crash:
            raise Killed
        append(self, line)

    def die_after_it(self, number, *rest):
        stopped = record(self, number, *rest)
        if number == crash:
            raise Killed
        return stopped

    with monkeypatch.context() as patch:
        if before == "record":
            patch.setattr(RunFolder, "append_record", die_before_the_line)
        else:
            patch.setattr(Commit, "record", die_after_it)
        with pytest.raises(Killed):
            run(settings, out=tmp_path / "killed")
    killed = resume(tmp_path / "killed").path
    assert accepted(killed) == accepted(whole.path)
    for name in ("findings.jsonl", "requirements.jsonl"):
        assert (killed / name).read_text() == (whole.path / name).read_text()


def test_a_run_that_a_requirement_ended_has_nothing_left_to_do(tmp_path, monkeypatch):
    settings = judged({**GOOD, "threshold": 3}, assess__on_failure="stop")
    append = RunFolder.append_record

    def die_before_the_end(self, line):
        if line.kind == "end":
            raise Killed
        append(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_record", die_before_the_end)
        with pytest.raises(Killed):
            run(settings, out=tmp_path / "run")
    done = resume(tmp_path / "run")
    assert (done.end.status, done.end.rounds, done.end.accepted) == ("stopped", 4, 2)


def test_evidence_stays_private_and_only_that_of_two_rounds(free):
    private = sorted(path.name for path in (free.path / "private").glob("evidence-*"))
    assert private == ["evidence-00004.safetensors", "evidence-00006.safetensors"]
    assert "evidence" not in (free.path / "findings.jsonl").read_text()


def test_a_gate_on_private_records_is_a_release_that_the_claims_do_not_cover():
    made = compose(make_config(config()))
    assert uncovered(made) == ()
    private = compose(make_config(config(data__evaluation="validation")))
    (phrase,) = uncovered(private)
    assert "which round's model is accepted or ends the run" in phrase
    elsewhere = {"name": "corruptions", "shift": "elsewhere:records"}
    (phrase,) = uncovered(compose(make_config(config(assess__assessors=[elsewhere]))))
    assert "on its second domain, unless these records are public" in phrase


def test_how_models_are_judged_is_known_before_the_first_round(whole):
    said = whole.start.assessment
    assert (said["every"], said["looks"], said["on_failure"], said["max_share"]) == (2, 3, "keep", 0.2)
    assert said["assessors"]["performance"]["forward"] == 60
    assert json.loads((whole.path / "record.jsonl").read_text().splitlines()[0])["assessment"] == said


def test_an_older_record_says_nothing_of_acceptance(tmp_path, free):
    shutil.copytree(free.path, tmp_path / "run")
    path = tmp_path / "run"
    lines = [json.loads(line) for line in (path / "record.jsonl").read_text().splitlines()]
    for line in lines:
        for key in ("accepted", "assess_every", "assessment", "checkpoint" if line["kind"] == "end" else ""):
            line.pop(key, None)
    (path / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    old = Run(path)
    assert old.accepted is None
    assert old.metrics == old.rounds().iloc[-1][["accuracy", "loss"]].to_dict()
    assert np.isfinite(old.end.accuracy)
