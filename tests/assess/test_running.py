"""Assessors are found by name, and none can stop or disturb another."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import make_subject
from torch import nn

from fedsafe.assess import ASSESSORS, COMPARISON, DEFAULT, Cost, find_assessor, plan_assessors, run_assessors
from fedsafe.errors import ConfigError, DataError, ModelError
from fedsafe.findings import Metric, proportion, register_metric

MINE = register_metric(Metric(name="made.share", unit="share", direction="higher", description="Made.")).name
CLAIMS = (
    {"unit": "record", "epsilon": 3.0, "delta": 1e-5, "adversary": "server", "group_epsilon": 7.5},
    {"unit": "client", "epsilon": None},
)


@pytest.fixture
def subject(perceptron, inputs, judged):
    x = inputs(900)
    y = np.random.default_rng(9).integers(0, 2, 900)
    shards = tuple(np.array_split(np.arange(900), 40))
    return judged(nn.Sequential(perceptron(), nn.Dropout(0.5)), x, y, shards=shards, claims=CLAIMS, round=3)


class Made:
    """An assessor whose call is given."""

    def __init__(self, name, call):
        self.name, self.call = name, call

    def plan(self, subject, tier):
        return Cost(description="made")

    def __call__(self, subject, *, rng, tier):
        return self.call(subject, rng)


PREFERENCES = ("alignment", "personal_alignment", "preference_poisoning")


def good(subject, rng):
    return [proportion(MINE, int(rng.integers(0, 1000)), 1000)]


def test_what_a_complete_subject_lacks_is_listed():
    found = run_assessors(make_subject("binary"), list(ASSESSORS), rng_seed=0, tier="cheap")
    assert list(found) == [*ASSESSORS, COMPARISON]
    odd = [f for findings in found.values() for f in findings if f.status != "measured"]
    # 480 non-members resolve no rate below 2 %, and a tenth of 8 clients is no share.
    few = ("membership.true_positive_rate", "insufficient")
    # Nothing of it is of preferences.
    pairs = [f for f in odd if f.metric.split(".")[0] in PREFERENCES]
    assert {f.status for f in pairs} == {"not_applicable"}
    assert len(pairs) == 7
    assert [(f.metric, f.status, f.where) for f in odd if f not in pairs] == [
        (
            "robustness.flipped_accuracy",
            "not_applicable",
            {"attack": "categorical", "norm": "columns", "radius": 1},
        ),
        ("generalisation.worst_clients_score", "insufficient", {"clients": "unseen", "share": 0.1}),
        (*few, {"attack": "loss threshold", "false_positive_rate": 0.01}),
        (*few, {"attack": "loss threshold", "false_positive_rate": 0.001}),
        (f"client_{few[0]}", few[1], {"attack": "fall of a client's loss", "false_positive_rate": 0.1}),
        (f"client_{few[0]}", few[1], {"attack": "fall of a client's loss", "false_positive_rate": 0.01}),
        ("privacy.epsilon", "not_applicable", {"unit": "client"}),
    ]


def test_an_assessor_that_raises_is_reported_by_name_and_the_others_run(subject):
    def bad(subject, rng):
        raise RuntimeError("no such luck")

    found = run_assessors(subject, [Made("bad", bad), Made("good", good)], rng_seed=0, tier="cheap")
    (finding,) = found["bad"]
    assert (finding.metric, finding.status, finding.value) == ("assess.completed", "failed", None)
    assert finding.where == {"assessor": "bad"}
    assert "'bad'" in finding.reason
    assert "RuntimeError: no such luck" in finding.reason
    assert found["good"][0].status == "measured"


@pytest.mark.parametrize(
    ("returned", "words"),
    [(None, "a NoneType"), ({}, "a dict"), ([0.5], "entry 0 of its list is a float"), ("fine", "a str")],
)
def test_a_wrong_return_type_is_refused_by_name(subject, returned, words):
    found = run_assessors(subject, [Made("odd", lambda s, r: returned)], rng_seed=0, tier="cheap")
    (finding,) = found["odd"]
    assert finding.status == "failed"
    assert "'odd'" in finding.reason
    assert words in finding.reason


@pytest.mark.parametrize("error", [SystemExit(5), MemoryError()])
def test_an_assessor_cannot_end_the_process(subject, error):
    def leave(subject, rng):
        raise error

    found = run_assessors(subject, [Made("leaver", leave), Made("good", good)], rng_seed=0, tier="cheap")
    assert f"'leaver' failed: {type(error).__name__}" in found["leaver"][0].reason
    assert found["good"][0].status == "measured"


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (["performance.accuracy"], "'performance.accuracy' is a metric of FedSafe's own assessors"),
        (["assess.completed"], "register_metric"),
        ([MINE, MINE], f"two findings of '{MINE}' with the same where"),
    ],
)
def test_no_assessor_can_answer_for_another_or_twice(subject, metrics, words):
    def call(subject, rng):
        return [proportion(metric, 1, 1, where={"a": 1}) for metric in metrics]

    # Nor by the name of the built-in one.
    (finding,) = run_assessors(subject, [Made("performance", call)], rng_seed=0, tier="cheap")["performance"]
    assert (finding.metric, finding.status) == ("assess.completed", "failed")
    assert words in finding.reason
    assert "'performance' failed" in finding.reason


def test_slices_of_one_metric_are_no_repetition(subject):
    def call(subject, rng):
        return [proportion(MINE, 1, 2, where={"a": number}) for number in range(3)]

    found = run_assessors(subject, [Made("made", call)], rng_seed=0, tier="cheap")["made"]
    assert [finding.where["a"] for finding in found] == [0, 1, 2]


def test_adding_an_assessor_does_not_change_another(subject):
    alone = run_assessors(subject, [Made("b", good)], rng_seed=0, tier="cheap")
    both = run_assessors(subject, [Made("a", good), Made("b", good)], rng_seed=0, tier="cheap")
    assert alone["b"] == both["b"]
    assert both["a"] != both["b"]
    assert run_assessors(subject, [Made("b", good)], rng_seed=1, tier="cheap") != alone


def test_an_assessor_cannot_damage_the_model_nor_global_randomness(subject):
    def vandal(subject, rng):
        subject.model.train()
        with torch.no_grad():
            for parameter in subject.model.parameters():
                parameter.zero_()
        return [proportion(MINE, int(torch.randint(0, 1000, ())), 1000)]

    before, state = copy.deepcopy(subject.model.state_dict()), torch.get_rng_state()
    first = run_assessors(subject, [Made("vandal", vandal)], rng_seed=0, tier="cheap")
    assert all(torch.equal(before[key], value) for key, value in subject.model.state_dict().items())
    assert not subject.model.training
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(7)
    assert run_assessors(subject, [Made("vandal", vandal)], rng_seed=0, tier="cheap") == first


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_model_without_finite_outputs_gets_no_number(inputs, judged, broken):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(broken))

        def forward(self, x):
            return x[:, :1] * self.weight

    subject = judged(Broken(), inputs(300), np.arange(300) % 2)
    found = run_assessors(subject, DEFAULT, rng_seed=0, tier="cheap")
    # Neither of these asks the model of a task like this.
    findings = [finding for name in found if name not in ("privacy", "alignment") for finding in found[name]]
    assert len(findings) == len(DEFAULT) - 2
    assert {finding.status for finding in findings} == {"failed"}
    assert all("not finite" in finding.reason for finding in findings)
    with pytest.raises(ModelError, match="300 of 300"):
        subject.predict(subject.evaluation.x)


def test_costs_are_known_before_anything_is_spent(subject):
    def explode(subject, rng):
        raise AssertionError("nothing runs")

    planned = plan_assessors(subject, ["performance", "robustness", Made("made", explode)], "cheap")
    assert list(planned) == ["performance", "robustness", "made"]
    assert planned["performance"].forward == len(subject.evaluation)
    assert planned["robustness"].backward > 0


@pytest.mark.parametrize("plan", [lambda subject, tier: 1 / 0, lambda subject, tier: 3])
def test_an_assessor_that_cannot_plan_says_so(subject, plan):
    made = Made("made", good)
    made.plan = plan
    assert plan_assessors(subject, [made], "full")["made"].description.startswith("not planned: ")


def test_every_assessor_is_timed(subject):
    seconds = {}
    run_assessors(
        subject, [Made("a", good), "performance"], rng_seed=0, tier="cheap", timed=seconds.__setitem__
    )
    assert set(seconds) == {"a", "performance", "comparison"}
    assert all(spent >= 0 for spent in seconds.values())


def test_names_are_found_or_refused_with_the_nearest(subject):
    assert find_assessor("fedsafe.assess.privacy.assessor:Privacy").name == "privacy"
    for spec, words in (
        ("fairnes", "did you mean 'fairness'"),
        ("no.such:thing", "cannot be imported"),
        ("fedsafe.assess.privacy.assessor:Nothing", "cannot be imported"),
        ("math:pi", "not something to call"),
        ("fractions:Fraction.missing", "cannot be imported"),
        ("fedsafe.assess:Subject", "cannot be made: TypeError"),
    ):
        with pytest.raises(ConfigError, match=words):
            find_assessor(spec)
    for options, words in (
        ({"atacks": ["fgsm"]}, "did you mean 'attacks'"),
        ({"zzz": 1}, "its options are .*radii"),
    ):
        with pytest.raises(ConfigError, match=words):
            find_assessor({"name": "robustness", **options})
    with pytest.raises(ConfigError, match="it has no options"):
        find_assessor({"name": "privacy", "zzz": 1})
    with pytest.raises(ConfigError, match="two assessors are named 'privacy'"):
        run_assessors(subject, ["privacy", "privacy"], rng_seed=0, tier="cheap")
    with pytest.raises(ConfigError, match="named 'comparison'"):
        run_assessors(subject, [Made("comparison", good)], rng_seed=0, tier="cheap")
    with pytest.raises(ConfigError, match="tier 'quick'"):
        run_assessors(subject, ["privacy"], rng_seed=0, tier="quick")


def test_privacy_findings_follow_the_claims(subject, inputs, judged, linear):
    found = run_assessors(subject, ["privacy"], rng_seed=0, tier="cheap")["privacy"]
    record, group, client = found
    assert (record.value, record.bound, record.interval) == (3.0, "upper", None)
    assert record.where == {"unit": "record", "adversary": "server"}
    assert (group.metric, group.value) == ("privacy.group_epsilon", 7.5)
    assert (client.status, client.where) == ("not_applicable", {"unit": "client"})
    for claims in ((), ({"unit": "record", "epsilon": float("inf")},)):
        bare = judged(linear(np.zeros(6), 0.0), inputs(2), [0, 1], claims=claims)
        (finding,) = run_assessors(bare, ["privacy"], rng_seed=0, tier="cheap")["privacy"]
        assert (finding.status, finding.value) == ("not_applicable", None)


def test_a_subject_that_cannot_be_judged_is_refused(linear, inputs, judged):
    subject = judged(linear(np.zeros(6), 0.0), inputs(4), [0, 1, 0, 1])
    with pytest.raises(ConfigError, match=r"model\.eval"):
        replace(subject, model=nn.Linear(6, 1))
    with pytest.raises(DataError, match="empty"):
        replace(subject, evaluation=subject.evaluation.take(np.arange(0)))
    narrow = replace(subject.evaluation, x=np.zeros((4, 5), np.float32))
    with pytest.raises(DataError, match="5 features, the schema 6"):
        replace(subject, evaluation=narrow)
    with pytest.raises(DataError, match="labels run from 0 to 5"):
        replace(subject, evaluation=replace(subject.evaluation, y=np.array([0, 1, 5, 1])))
    with pytest.raises(ModelError, match=r"\(4, 2\)"):
        replace(subject, model=nn.Linear(6, 2).eval()).predict(subject.evaluation.x)


def test_private_evaluation_records_are_marked_as_released(linear, inputs, judged):
    subject = judged(linear(np.ones(6), 0.0), inputs(200), np.arange(200) % 2)
    private = replace(subject, task=replace(subject.task, evaluation_public=False))
    found = run_assessors(private, ["performance"], rng_seed=0, tier="cheap")["performance"]
    assert all("charged to no budget" in finding.released for finding in found)


def test_predictions_do_not_depend_on_batches(perceptron, inputs, judged, monkeypatch):
    x = inputs(500)
    subject = judged(perceptron(3), x, np.arange(500) % 3, classes=3)
    whole = subject.logits(x)
    monkeypatch.setattr("fedsafe.assess.base._MOST_ROWS", 64)
    assert subject.logits(x) == pytest.approx(whole, abs=1e-6)
    assert subject.logits(x[:0]).shape == (0, 3)
