import json
import tracemalloc

import numpy as np
import pytest
import tiny_federation
import torch
from guarded_model import SCHEMA, draw, guard, images, model, monitor, table, trained, unseen
from torch import nn

import fedsafe
from fedsafe.errors import ConfigError, DataError, RecordError
from fedsafe.serve import DecisionLog, Guard, Monitor, Policy, read_log, verify_log
from fedsafe.serve.detectors.synthetic import uniform
from fedsafe.serve.opening import open_guard, split_public
from fedsafe.serve.queries import QueryPatterns
from fedsafe.serve.text_privacy import Canaries, TextPrivacy, identifiers

QUIET = Policy(flips="off", strange="off")


def test_every_input_gets_one_decision_and_abstentions_have_reasons():
    decisions = guard().predict(unseen().x[:300])
    assert len(decisions) == len({decision.id for decision in decisions}) == 300
    for decision in decisions:
        assert decision.answered == (not decision.reasons) == (decision.label is not None)
        assert set(decision.p_values) == {"ood", "adversarial", "combined"}
        assert json.loads(json.dumps(decision.to_json()))["id"] == decision.id
    assert 0.5 < np.mean([decision.answered for decision in decisions]) < 1.0


def test_answers_are_the_models_with_calibrated_confidence():
    x = unseen().x[:50]
    decisions = guard(policy=QUIET).predict(x)
    with torch.no_grad():
        logits = model()(torch.tensor(x)).numpy()[:, 0]
    positive = 1 / (1 + np.exp(-logits / monitor().temperature))
    assert [decision.label for decision in decisions] == ["yes" if logit > 0 else "no" for logit in logits]
    assert np.allclose([d.confidence for d in decisions], np.maximum(positive, 1 - positive), atol=1e-6)


def test_what_is_no_record_is_never_answered_and_does_not_disturb_its_neighbours():
    x = unseen().x[:6].copy()
    x[1, 8], x[2, 0], x[3, 6], x[4, 3] = np.nan, 0.5, 7.0, 1.0 - x[4, 3]
    x[5, 7] = np.inf
    decisions, alone = guard(policy=QUIET).predict(x), guard(policy=QUIET).predict(x[:1])
    assert [decision.answered for decision in decisions] == [True, *[False] * 5]
    assert decisions[0].confidence == pytest.approx(alone[0].confidence)
    reasons = [decision.reasons[0] for decision in decisions[1:]]
    assert reasons[0] == "schema:not finite at debt"
    assert reasons[2].startswith("schema:outside its bounds at age")
    assert reasons[1] == "schema:not exactly one category of sex"
    assert reasons[3].startswith("schema:not exactly one category of role")
    assert all(not decision.p_values and decision.confidence is None for decision in decisions[1:])


@pytest.mark.parametrize(
    "x", [[["a"] * 9], [[1.0] * 8], 3, [[None] * 9], np.zeros((2, 9), complex), "text", [[10**400] * 9]]
)
def test_a_batch_that_is_no_array_of_the_shape_is_refused(x):
    with pytest.raises(DataError, match="give"):
        guard().predict(x)
    assert guard().predict(np.zeros((0, 9))) == []


def test_strange_inputs_are_not_answered_unless_they_are_only_noted():
    x = np.concatenate([uniform(40, SCHEMA, np.random.default_rng(0))[:, 6:]], axis=1)
    valid = np.concatenate([np.eye(2)[[0] * 40], np.eye(4)[[3] * 40], x * [0.05, 0.05, 0.05]], axis=1)
    strict = guard(policy=Policy(flips="off")).predict(valid)
    noted = guard(policy=Policy(flips="off", strange="note")).predict(valid)
    assert sum("ood" in decision.reasons or "adversarial" in decision.reasons for decision in strict) > 35
    assert all(decision.answered for decision in noted)
    assert sum(bool(decision.notes) for decision in noted) > 35


def test_a_floor_keeps_unsure_answers_back():
    x = unseen().x
    decisions = guard(policy=Policy(flips="off", strange="off", floor=0.8)).predict(x)
    assert {decision.answered == (decision.confidence >= 0.8) for decision in decisions} == {True}
    assert {reason for decision in decisions for reason in decision.reasons} == {"confidence"}
    with pytest.raises(ConfigError, match="least confidence"):
        Policy(floor=1.0)


def test_flips_are_those_of_trying_the_other_value():
    x = unseen().x[:400]
    decisions = guard(policy=Policy(strange="off")).predict(x)
    other = x.copy()
    other[:, :2] = 1 - other[:, :2]
    with torch.no_grad():
        moved = (model()(torch.tensor(x)) > 0) != (model()(torch.tensor(other)) > 0)
    assert moved.any()
    assert [d.reasons == ("flip:sex",) for d in decisions] == moved[:, 0].tolist()


def test_an_output_that_is_no_number_is_an_abstention():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.whole = model()

        def forward(self, x):
            return torch.where(x[:, 7:8] > 0.9, torch.nan, self.whole(x.clamp(max=0.9)))

    broken = Broken().eval()
    found = Monitor.fit(broken, table(), draw(1000, 30).take(np.flatnonzero(draw(1000, 30).x[:, 7] < 0.85)))
    x = unseen().x[:2].copy()
    x[:, 7] = (0.5, 0.95)
    one, other = Guard(broken, found, table(), policy=QUIET).predict(x)
    assert one.answered
    assert other.reasons == ("model:output not finite",)


def test_explanations_add_up_to_what_the_output_moved():
    x = unseen().x[:5]
    explained = guard().explain(x)
    with torch.no_grad():
        change = model()(torch.tensor(x)) - model()(torch.tensor(monitor().centre[None]))
    assert list(explained[0]) == ["sex", "role", "age", "income", "debt"]
    with torch.no_grad():
        for_class = np.where(model()(torch.tensor(x))[:, 0] > 0, 1.0, -1.0)  # of class 0 what speaks for it
    assert set(for_class) == {-1.0, 1.0}
    assert np.allclose([sum(row.values()) for row in explained], for_class * change[:, 0].numpy(), atol=0.05)
    answered = [d for d in guard(policy=QUIET).predict(x, explain=True) if d.answered]
    assert all(decision.explanation is not None for decision in answered)


def test_images_are_guarded_too():
    task = images()
    net = trained(task, steps=60, flatten=True)
    found = Guard(net, Monitor.fit(net, task, task.evaluation.take(np.arange(1000))), task)
    decisions = found.predict(task.evaluation.x[1000:1100])
    assert np.mean([decision.answered for decision in decisions]) > 0.8
    assert len(found.explain(task.evaluation.x[:1])[0]) == 64


def test_a_caller_who_walks_around_one_record_is_stopped_and_others_are_not():
    patterns = QueryPatterns(table().evaluation.x)
    found = guard(queries=patterns, policy=QUIET)
    honest = [d.answered for d in found.predict(unseen().x, caller="honest")]
    assert all(honest)
    rng = np.random.default_rng(0)
    walk = np.repeat(unseen().x[:1], 200, axis=0)
    walk[:, 7:] = np.clip(walk[:, 7:] + rng.normal(0, 0.005, (200, 2)), 0, 1)
    one_by_one = [found.predict(row[None], caller="copier")[0] for row in walk[:100]]
    batch = found.predict(walk[100:], caller="copier")
    stopped = [d.reasons == ("queries",) for d in [*one_by_one, *batch]]
    assert not any(stopped[: patterns.limit // 2])
    assert all(stopped[-50:])
    assert all(d.answered for d in found.predict(walk[:5], caller="somebody else"))
    assert all(d.answered for d in found.predict(walk[:100]))  # nobody knows who asks


def test_counts_of_queries_are_those_of_a_loop_and_memory_is_bounded():
    patterns = QueryPatterns(table().evaluation.x, window=16, callers=4)
    rng = np.random.default_rng(1)
    x = draw(60, 40).x[rng.integers(0, 6, 60)]
    sketches, slow = x @ patterns._directions, []
    for at in range(60):
        before = sketches[max(0, at - 16) : at]
        slow.append(int((np.square(before - sketches[at]).sum(axis=1) <= patterns.close).sum()))
    assert [int(patterns.counts(row[None], "a")[0]) for row in x] == slow
    for caller in range(50):
        patterns.counts(x[:1], str(caller))
    assert len(patterns) == 4
    with pytest.raises(ConfigError, match="50 public records"):
        QueryPatterns(x[:10])


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to jane.doe+x@mail.example.org today", ("email",)),
        ("call +49 30 1234 5678 or (030) 123-4567", ("phone",)),
        ("her number is 555-867-5309.", ("phone",)),
        ("pay to DE89 3704 0044 0532 0130 00 please", ("iban",)),
        ("pay to GB82WEST12345698765432", ("iban",)),
        ("pay to DE89 3704 0044 0532 0130 01 please", ()),
        ("card 4111 1111 1111 1111 ok", ("card",)),
        ("card 4111 1111 1111 1112 ok", ()),
        ("at 3 pm on 2024-05-17 we paid 1234567 for 12.50 each, version 1.2.3, 10-20 people", ()),
        ("@home, a@b, user@, 0000000000000000", ()),
        ("", ()),
    ],
)
def test_identifiers_are_found_and_other_numbers_are_not(text, kinds):
    assert identifiers(text) == kinds


def test_codes_that_are_no_iban_are_seldom_taken_for_one():
    import string

    rng = np.random.default_rng(0)
    letters = list(string.ascii_uppercase + string.digits)
    codes = [f"AB{rng.integers(10, 99)}" + "".join(rng.choice(letters, 30)) for _ in range(300)]
    german = [f"DE{rng.integers(10, 99)}" + "".join(rng.choice(letters, 18)) for _ in range(300)]
    assert not any("iban" in identifiers(code) for code in codes)  # of no country
    assert sum("iban" in identifiers(code) for code in german) <= 12  # one in 97
    assert identifiers("DE89 3704 0044 0532 0130 00 BIC COBA") == ("iban",)
    assert identifiers("de89370400440532013000") == ("iban",)


def test_identifiers_of_a_hostile_text_take_no_time():
    for text in ("a." * 50000 + "@", "1 " * 50000, "DE89" + " AB12" * 20000, "(" * 100000, "+1" * 50000):
        identifiers(text)


def test_near_copies_of_canaries_are_found_and_the_estimate_is_the_share_in_common():
    words = [f"w{at}" for at in range(60)]
    canaries = Canaries([" ".join(words)], hashes=512)
    changed = [*words[:50], "other"]
    runs = [{" ".join(text[at : at + 3]) for at in range(len(text) - 2)} for text in (words, changed)]
    truth = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
    assert canaries.nearest(" ".join(changed)) == pytest.approx(truth, abs=0.08)
    assert canaries.near(" ".join(words).upper() + "!")
    assert not canaries.near("something else entirely")
    assert not canaries.near("")
    found = TextPrivacy(canaries).check(" ".join(words) + " me@example.org")
    assert found == ("identifier:email", "canary")
    with pytest.raises(ConfigError):
        Canaries([])


def test_private_texts_are_not_answered():
    decisions = guard(policy=QUIET).predict(unseen().x[:2], texts=["fine", "mail a@example.org"])
    assert [decision.reasons for decision in decisions] == [(), ("identifier:email",)]
    with pytest.raises(DataError, match="one for each"):
        guard().predict(unseen().x[:2], texts=["fine"])


def test_nothing_is_decided_that_cannot_be_logged(tmp_path):
    log = DecisionLog(tmp_path / "log.jsonl", bytes(32), model="m")
    found = guard(log=log)
    found.predict(unseen().x[:3])
    found.close()
    with pytest.raises(RecordError, match="closed"):
        found.predict(unseen().x[:3])
    assert sum(line["kind"] == "decision" for line in read_log(tmp_path / "log.jsonl")) == 3


def test_a_stream_that_cannot_be_saved_or_an_alert_that_cannot_be_logged_calls_off_no_decision(
    tmp_path, monkeypatch
):
    from fedsafe.serve.streams import open_stream

    stream = open_stream(None, monitor(), table(), unseen())
    stream.path = tmp_path / "no folder" / "stream.json"
    monkeypatch.setattr("fedsafe.serve.streams.monitoring._UNSAVED", 1)
    log = DecisionLog(tmp_path / "log.jsonl", bytes(32), model="m")

    def full(*_):
        raise RecordError("no space")

    monkeypatch.setattr(log, "note", full)
    found = guard(stream=stream, log=log)
    assert len(found.predict(unseen().x[:3])) == 3
    value = found.figures.registry.get_sample_value
    for kind in ("stream", "log"):
        assert value("fedsafe_guard_alerts_total", {"kind": kind, "severity": "critical"}) == 1
    with pytest.raises(RecordError, match="cannot be written"):
        found.close()
    assert log._closed


def test_ids_tell_nothing_of_how_many_others_there_are():
    found = guard()
    ids = [decision.id for decision in (*found.predict(unseen().x[:2]), *found.predict(unseen().x[:2]))]
    assert len(set(ids)) == 4
    assert all(len(each) == 18 and not each.endswith(("-0", "-1")) for each in ids)
    assert len({each[:8] for each in ids}) == 4


def test_counters_say_what_was_decided():
    found = guard()
    decisions = found.predict(unseen().x[:200])
    answered = sum(decision.answered for decision in decisions)
    value = found.figures.registry.get_sample_value
    assert value("fedsafe_guard_decisions_total", {"answered": "yes"}) == answered
    assert value("fedsafe_guard_decisions_total", {"answered": "no"}) == 200 - answered


def test_memory_does_not_grow_with_decisions():
    found, x = guard(queries=QueryPatterns(table().evaluation.x, window=32)), unseen().x
    found.predict(x[:200], caller="a")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for at in range(0, 1000, 50):
        found.predict(x[at : at + 50], caller="a")
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    task = tiny_federation.task(evaluation=1200)
    path = tmp_path_factory.mktemp("runs") / "run"
    rules = [{"metric": "performance.accuracy", "op": ">=", "threshold": 0.05, "severity": "must"}]
    settings = tiny_federation.config(assess__require=rules)
    settings.pop("task")
    fedsafe.run(settings, data=task, out=path)
    return path, task


def test_a_guard_opens_the_accepted_model_of_a_run_and_logs_in_its_private_folder(run):
    path, task = run
    with pytest.raises(ConfigError, match="data="):
        open_guard(path)
    # Its noise is not the same in every run: whether the model turns on a column is no matter here.
    found = open_guard(path, data=task, stream=True, policy=QUIET)
    reference, test = split_public(task, 0)
    assert len(reference) + len(test) == 1200
    assert found.release.round == 3
    assert found.release.failed == ()
    decisions = found.predict(test.x, caller="me")
    assert np.mean([d.answered for d in decisions]) > 0.2
    head = found.log.head
    found.close()
    log = path / "private" / "decisions.jsonl"
    assert log.stat().st_mode & 0o077 == 0
    assert (path / "private" / "decisions.key").stat().st_mode & 0o077 == 0
    key = bytes.fromhex((path / "private" / "decisions.key").read_text())
    assert verify_log(log, key, head=head) == head
    again = open_guard(path, data=task, stream=True)
    assert again.stream.seen == len(test)
    assert {f.metric for f in again.findings()} > {"monitor.auroc"}
    again.close()


def test_a_model_that_fails_what_it_must_is_not_served_unless_told(run, tmp_path):
    import shutil

    path, task = run
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    lines = [json.loads(line) for line in (copy / "requirements.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"verdict": "fail", "blocks": True}
    (copy / "requirements.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match=r"fails what .*performance.accuracy >= 0.05: fail.*allow-failed"):
        open_guard(copy, data=task)
    found = open_guard(copy, data=task, allow_failed=True, logged=False, sinks=())
    assert found.release.failed == ("performance.accuracy >= 0.05: fail",)


def test_a_model_that_was_never_judged_is_not_served_where_others_must_pass(run):
    path, task = run
    judged = {json.loads(line)["round"] for line in (path / "requirements.jsonl").read_text().splitlines()}
    (unjudged,) = {1, 2, 3} - judged
    with pytest.raises(ConfigError, match="never judged"):
        open_guard(path, data=task, round=unjudged)


def test_a_run_whose_verdicts_are_gone_is_not_served(run, tmp_path):
    import shutil

    path, task = run
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    (copy / "requirements.jsonl").unlink()
    with pytest.raises(ConfigError, match="never judged"):
        open_guard(copy, data=task)


def test_a_model_that_an_assessment_found_to_fail_is_not_served(run, tmp_path):
    import shutil

    path, task = run
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    folder = copy / "assessments" / "round-00003-full-bias"
    folder.mkdir(parents=True)
    line = {"metric": "fairness.equalised_odds_difference", "op": "<=", "threshold": 0.2, "verdict": "fail"}
    lines = [{**line, "round": 3, "blocks": True}, {**line, "round": 2, "blocks": True}]
    (folder / "requirements.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    with pytest.raises(ConfigError, match=r"\(assessments/round-00003-full-bias: [^;]*fail\)"):
        open_guard(copy, data=task)
    found = open_guard(copy, data=task, allow_failed=True, logged=False, sinks=())
    assert len(found.release.failed) == 1


def test_two_guards_with_logs_of_their_own_follow_streams_of_their_own(run, tmp_path):
    path, task = run
    x = split_public(task, 0)[1].x
    one, two = (
        open_guard(path, data=task, log=tmp_path / f"{name}.jsonl", stream=True, sinks=()) for name in "ab"
    )
    one.predict(x[:30])
    two.predict(x[:5])
    one.close()
    two.close()
    again = open_guard(path, data=task, log=tmp_path / "a.jsonl", stream=True, sinks=())
    assert again.stream.seen == 30
    with pytest.raises(RecordError, match="in use"):
        open_guard(path, data=task, log=tmp_path / "a.jsonl", stream=True, sinks=())
    again.close()


def test_a_monitor_on_all_public_records_is_not_measured_on_a_part_of_them(run):
    from fedsafe.serve.safety_card import measure

    path, task = run
    found = open_guard(path, data=task, reference=task.evaluation, logged=False, sinks=())
    assert measure(found) == []


def test_private_evaluation_records_are_no_reference(run):
    from dataclasses import replace

    _path, task = run
    private = replace(task, evaluation_public=False)
    with pytest.raises(ConfigError, match="not declared public"):
        split_public(private, 0)


def test_a_monitor_of_another_model_is_refused():
    with pytest.raises(ConfigError, match="another model"):
        Guard(trained(table(), steps=1), monitor(), table())
