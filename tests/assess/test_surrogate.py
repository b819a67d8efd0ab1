"""A tree imitates a tree, and nothing else is mistaken for agreement."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import COLUMNS, make_model, make_subject, make_task
from sklearn.metrics import cohen_kappa_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from torch import nn

from fedsafe.assess import Requirement, judge
from fedsafe.assess.interpretability.agreement import chance_agreement, confusion, gain, kappa
from fedsafe.assess.interpretability.rules import read_rules
from fedsafe.assess.interpretability.surrogate import Surrogate
from fedsafe.data import Label, Numeric, Schema


def run(model, kind="binary", n=2000, seed=0, **options):
    subject = make_subject(kind, model, make_task(kind, n))
    findings = Surrogate(**options)(subject, rng=np.random.default_rng(seed), tier="cheap")
    return {finding.metric.removeprefix("surrogate."): finding for finding in findings}


class Rules(nn.Module):
    """Positive if a0 is above 2 in its own unit (0.4 encoded), else if a man has a1 of at most -1 (-0.2 encoded)."""

    def forward(self, x):
        positive = (x[:, 0] > 0.4) | ((x[:, 5] > 0.5) & (x[:, 1] <= -0.2))
        return torch.where(positive, 1.0, -1.0)[:, None]


class Noise(nn.Module):
    """Positive for a share of the inputs that no small tree can tell."""

    def __init__(self, share):
        super().__init__()
        self.share = share

    def forward(self, x):
        return self.share - (x[:, :1] * 7919 + x[:, 1:2] * 104729).frac().abs()


def test_a_tree_as_target_is_imitated_and_perfect_agreement_is_no_certainty():
    found = run(Rules())
    for name in ("fidelity", "kappa", "gain_over_majority"):
        low, high = found[name].interval
        assert found[name].value > 0.97
        assert 0.9 < low < found[name].value <= high

    class Sex(nn.Module):
        def forward(self, x):
            return x[:, 5:] - 0.5

    found = run(Sex(), n=400)
    assert found["rules"].value == 2.0
    for name in ("fidelity", "kappa", "gain_over_majority"):
        assert (found[name].value, found[name].interval[1]) == (1.0, 1.0)
        assert 0.9 < found[name].interval[0] < 0.99  # 200 held-out examples


def test_rules_are_in_the_columns_own_names_and_units():
    rules = run(Rules(), n=4000)["rules"].detail["rules"]
    assert [rule["then"] for rule in rules].count("yes") >= 2
    assert sum(rule["share"] for rule in rules) == pytest.approx(1)
    (high,) = [rule["if"] for rule in rules if rule["if"].startswith("a0 >") and rule["then"] == "yes"]
    assert float(high.split()[2]) == pytest.approx(2.0, abs=0.05)
    (man,) = [rule["if"] for rule in rules if "sex is Male" in rule["if"] and rule["then"] == "yes"]
    assert "a1 <= -" in man
    assert "not" not in man


def test_thresholds_of_private_records_are_not_shown():
    """Each is half-way between two records' values, which a reader of the findings could tell to six digits."""
    public = make_subject("binary", Rules(), make_task("binary", 400))
    private = replace(public, task=replace(public.task, evaluation_public=False))
    assert not private.shows_records
    for tier in ("cheap", "full"):
        findings = Surrogate()(private, rng=np.random.default_rng(0), tier=tier)
        (rules,) = [finding for finding in findings if finding.metric == "surrogate.rules"]
        assert rules.value > 1.0
        assert "rules" not in rules.detail
        assert "private" in rules.detail["rules_left_out"]
        assert not [finding for finding in findings if "bounds" in str(finding.detail)]


def test_a_rule_reads_one_hot_groups_and_decodes_logarithms():
    schema = Schema(
        label=Label(column="y", classes=("no", "yes")),
        columns=(Numeric(name="gain", low=0, high=999, transform="log1p", encoded=(0.0, 3.0)), *COLUMNS[4:]),
    )
    x = np.array([[0.9, 1, 0], [1.1, 1, 0], [0.9, 0, 1], [1.1, 0, 1]] * 5)
    tree = DecisionTreeClassifier(random_state=0).fit(x, np.array([0, 0, 0, 1] * 5))
    rules = read_rules(tree, schema, lambda value: str(value.argmax()))
    # Halfway between the encodings: log1p(gain) = log(1000) * 1.0 / 3.
    assert {rule["if"] for rule in rules if rule["then"] == "1"} <= {
        "gain > 9 and sex is Male",
        "sex is Male and gain > 9",
    }
    assert len(rules) == 3


def test_a_constant_model_is_never_a_pass_beyond_the_majority():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 1)

    found = run(Constant())
    assert found["fidelity"].anchors["majority_rule"] == found["fidelity"].value == 1.0
    for name in ("kappa", "gain_over_majority"):
        assert (found[name].status, found[name].value) == ("not_applicable", None)
        requirement = Requirement(metric=f"surrogate.{name}", op=">=", threshold=0.0)
        assert judge(requirement, list(found.values())).verdict == "unmeasured"


def test_fidelity_of_a_rare_decision_is_high_and_kappa_says_that_it_is_the_majoritys():
    found = run(Noise(0.05), n=4000)
    assert found["fidelity"].value > 0.9
    assert found["fidelity"].anchors["majority_rule"] == pytest.approx(0.95, abs=0.02)
    assert found["kappa"].interval[0] <= 0 <= found["kappa"].interval[1] + 1e-9
    assert found["gain_over_majority"].interval[0] <= 0


def test_figures_of_agreement_equal_their_definitions():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 500), rng.integers(0, 3, 500)
    b[:250] = a[:250]
    cells = confusion(a, b, 3)
    assert float(kappa(cells[None])[0]) == pytest.approx(cohen_kappa_score(a, b))
    agreed = np.mean(a == b)
    assert (agreed - chance_agreement(cells)) / (1 - chance_agreement(cells)) == pytest.approx(
        cohen_kappa_score(a, b)
    )
    majority = np.bincount(a).argmax()
    mended = (np.sum(a == b) - np.sum(a == majority)) / np.sum(a != majority)
    assert float(gain(cells[None], int(majority))[0]) == pytest.approx(mended)
    assert np.isnan(kappa(np.array([[[5, 0], [0, 0]]]))[0])


def test_an_instrument_that_finds_what_is_not_there_measures_nothing(monkeypatch):
    class Oracle(DecisionTreeClassifier):
        """Knows every answer: what a leak between the halves would look like."""

        def predict(self, x):
            return answers.pop()

    answers = []
    subject = make_subject("binary", Rules(), make_task("binary", 400))
    rng = np.random.default_rng(0)
    order = rng.permutation(400)
    held = np.sort(order[200:])
    decided = subject.predict(subject.evaluation.x)
    shuffled = rng.permutation(decided)
    answers += [shuffled[held], decided[held]]
    monkeypatch.setattr("fedsafe.assess.interpretability.surrogate.DecisionTreeClassifier", Oracle)
    found = Surrogate()(subject, rng=np.random.default_rng(0), tier="cheap")
    assert {(finding.status, finding.value) for finding in found} == {("unreliable", None)}
    assert "what is not there" in found[0].reason


def test_a_regression_tree_is_imitated_in_the_targets_unit():
    class Steps(nn.Module):
        def forward(self, x):
            return torch.where(x[:, :1] > 0.4, 0.6, -0.2)

    found = run(Steps(), "regression", n=4000)
    assert found["r2"].value > 0.98
    outcomes = {rule["then"] for rule in found["rules"].detail["rules"]}
    assert {"20 points", "40 points"} <= outcomes


def test_r2_of_the_tree_equals_its_definition():
    subject = make_subject("regression", make_model("regression", 3), make_task("regression", 1000))
    found = {f.metric: f for f in Surrogate()(subject, rng=np.random.default_rng(4), tier="cheap")}
    order = np.random.default_rng(4).permutation(1000)
    fit, held = np.sort(order[:500]), np.sort(order[500:])
    x, answers = subject.evaluation.x, subject.logits(subject.evaluation.x)[:, 0]
    tree = DecisionTreeRegressor(max_depth=4, min_samples_leaf=10, random_state=0).fit(x[fit], answers[fit])
    assert found["surrogate.r2"].value == pytest.approx(tree.score(x[held], answers[held]))


def test_few_examples_are_insufficient():
    subject = make_subject("binary", Rules(), make_task("binary", 99))
    found = Surrogate()(subject, rng=np.random.default_rng(0), tier="cheap")
    assert {finding.status for finding in found} == {"insufficient"}


class Vocabulary(nn.Module):
    """Decides for classes spread over a hundred thousand, by the first feature."""

    def __init__(self, decided, classes):
        super().__init__()
        self.decided, self.classes = decided, classes

    def forward(self, x):
        outputs = torch.zeros(len(x), self.classes)
        bins = ((x[:, 0] + 1) / 2 * self.decided).long().clamp(0, self.decided - 1)
        outputs[torch.arange(len(x)), bins * (self.classes // self.decided)] = 1.0
        return outputs


def test_a_vocabulary_of_classes_needs_no_square_of_memory():
    classes = 100_001
    like = make_task("binary", 400)
    task = replace(like, kind="multiclass", classes=tuple(map(str, range(classes))))
    for decided, status in ((3, "measured"), (200, "not_applicable")):
        subject = make_subject("multiclass", Vocabulary(decided, classes), task)
        findings = Surrogate()(subject, rng=np.random.default_rng(0), tier="cheap")
        assert {finding.status for finding in findings} == {status}
        assert findings[0].value is None or findings[0].value > 0.9
