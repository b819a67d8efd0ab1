"""Rules apply to records exactly as their tree does, and what is said of them holds."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import COLUMNS, make_model, make_subject, make_task
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from torch import nn

from fedsafe.assess.interpretability.rule_quality import by_depth, judge_rules, perturbed
from fedsafe.assess.interpretability.rules import apply, jaccard, matches, read_rules
from fedsafe.assess.interpretability.surrogate import Surrogate
from fedsafe.data import Label, Schema
from fedsafe.errors import ConfigError

SCHEMA = Schema(label=Label(column="y", classes=("no", "yes", "both")), columns=COLUMNS)


def records(n=3000, seed=0):
    return make_task("binary", n).evaluation.x if seed == 0 else make_task("binary", n + seed).train.x


def grown(kind, depth, seed=0):
    rng, x = np.random.default_rng(seed), records()
    y = (x[:, 0] > x[:, 1]).astype(int) + ((x[:, 2] > 0.2) & (x[:, 5] > 0.5)) + (rng.random(len(x)) < 0.1)
    y = np.minimum(y, 2)
    target = y * 3 if kind is DecisionTreeClassifier else y + rng.normal(size=len(x))
    return kind(max_depth=depth, min_samples_leaf=2, random_state=0).fit(x, target)


@pytest.mark.parametrize("kind", [DecisionTreeClassifier, DecisionTreeRegressor])
@pytest.mark.parametrize("depth", [1, 3, 8])
def test_rules_say_of_every_record_what_the_tree_says(kind, depth):
    tree = grown(kind, depth)
    rules = json.loads(json.dumps(read_rules(tree, SCHEMA, str)))
    for x in (records(), records(seed=1)):
        assert np.array_equal(apply(rules, x), tree.predict(x))
        assert (matches(rules, x).sum(axis=1) == 1).all()
    # Values on a threshold, and the nearest ones of single precision on both sides.
    inner = tree.tree_
    splits = np.flatnonzero(inner.children_left >= 0)
    edges = []
    for node in splits:
        edge = np.float32(inner.threshold[node])
        for value in (np.nextafter(edge, np.float32(-9)), edge, np.nextafter(edge, np.float32(9))):
            row = records()[node % 100].copy()
            row[inner.feature[node]] = value
            edges.append(row)
    assert np.array_equal(apply(rules, np.stack(edges)), tree.predict(np.stack(edges)))


def test_rules_that_are_not_all_of_a_trees_are_refused():
    rules = read_rules(grown(DecisionTreeClassifier, 3), SCHEMA, str)
    for wrong in (rules[1:], [*rules, rules[0]]):
        with pytest.raises(ConfigError, match="do not meet exactly one rule"):
            apply(wrong, records())


def test_one_leaf_is_one_rule_for_every_record():
    tree = DecisionTreeClassifier().fit(records(), np.ones(len(records()), dtype=int))
    rules = read_rules(tree, SCHEMA, str)
    assert (rules[0]["if"], rules[0]["bounds"]) == ("always", [])
    assert apply(rules, records()).tolist() == [1] * len(records())


def test_each_rule_is_judged_on_held_out_records():
    tree, x = grown(DecisionTreeClassifier, 3), records(seed=1)
    decided = np.where(x[:, 0] > 0, 0, 3)
    rules = judge_rules(read_rules(tree, SCHEMA, str), x, decided, None)
    leaves = tree.apply(x)
    shares = sorted(np.mean(leaves == leaf) for leaf in np.unique(leaves))
    assert sorted(rule["coverage"] for rule in rules if rule["held_out"]) == pytest.approx(shares)
    whole = sum(rule["coverage"] * (rule["fidelity"] or 0.0) for rule in rules)
    assert whole == pytest.approx(np.mean(tree.predict(x) == decided))
    assert "accuracy" not in rules[0]


def test_rules_are_alike_by_what_they_ask_and_not_by_their_numbers():
    def rules(*signs):
        return [{"outcome": 1, "bounds": [[0, 0.1 * i, None], [1, None, s]]} for i, s in enumerate(signs)]

    assert jaccard(rules(1.0), rules(2.0)) == 1.0
    assert jaccard(rules(1.0), [{"outcome": 0, "bounds": [[0, 0.1, None], [1, None, 1.0]]}]) == 0.0
    assert jaccard([*rules(1.0), {"outcome": 0, "bounds": []}], rules(1.0)) == 0.5


def test_records_nearby_are_possible_records():
    x, rng = records(), np.random.default_rng(0)
    near = perturbed(x, SCHEMA, rng)
    assert near.dtype == np.float32
    assert (near >= SCHEMA.low).all()
    assert (near <= SCHEMA.high).all()
    assert np.abs(near - x)[:, :4].max() <= 0.2 + 1e-6  # a tenth of the range from -1 to 1
    assert np.abs(near - x)[:, :4].mean() == pytest.approx(0.1, abs=0.01)
    assert (near[:, 4:].sum(axis=1) == 1).all()
    assert np.mean((near != x)[:, 4]) == pytest.approx(0.05, abs=0.015)  # half of those drawn anew


class Rules(nn.Module):
    def forward(self, x):
        positive = (x[:, 0] > 0.4) | ((x[:, 5] > 0.5) & (x[:, 1] <= -0.2))
        return torch.where(positive, 1.0, -1.0)[:, None]


class OnTheGrid(nn.Module):
    """A tree's decision that half the records find out exactly: all values are -0.75, -0.25, 0.25 or 0.75."""

    def forward(self, x):
        return torch.where((x[:, 0] > 0.0) | ((x[:, 5] > 0.5) & (x[:, 1] <= -0.5)), 1.0, -1.0)[:, None]


def full(model, kind="binary", n=2000, task=None):
    subject = make_subject(kind, model, task or make_task(kind, n))
    findings = Surrogate()(subject, rng=np.random.default_rng(0), tier="full")
    return subject, {finding.metric.removeprefix("surrogate."): finding for finding in findings}


def test_a_tree_as_target_has_fidelity_one():
    task = make_task("binary", 2000)
    x = task.evaluation.x.copy()
    x[:, :4] = np.clip(np.floor(x[:, :4] * 2) / 2 + 0.25, -0.75, 0.75)
    subject, found = full(OnTheGrid(), task=replace(task, evaluation=replace(task.evaluation, x=x)))
    assert found["fidelity"].value == found["kappa"].value == found["gain_over_majority"].value == 1.0
    rules = found["rules"].detail["rules"]
    assert np.array_equal(apply(rules, x), subject.predict(x))
    assert found["fidelity"].detail["curve"][-1]["fidelity"] == 1.0
    assert found["stability"].value > 0.9


def test_stability_tells_a_tree_from_noise_and_depth_is_worth_what_the_curve_says():
    _, found = full(Rules())
    stable = found["stability"]
    assert stable.interval[0] > stable.anchors["shuffled_decisions"] + 0.1
    curve = found["fidelity"].detail["curve"]
    assert [point["depth"] for point in curve][:3] == [1, 2, 3]
    assert curve[0]["rules"] == 2
    assert curve[0]["fidelity"] < curve[2]["fidelity"]
    # It ends where a deeper tree has no more rules: that of depth 4 is the last one.
    assert curve[-1]["rules"] == found["rules"].value
    assert curve[-1]["fidelity"] == pytest.approx(found["fidelity"].value)
    assert found["rules"].detail["mean_length"] >= 1
    assert sum(rule["coverage"] for rule in found["rules"].detail["rules"]) == pytest.approx(1)


class Ripples(nn.Module):
    """Decides by a column that hardly varies among the records, and only near them by another."""

    def forward(self, x):
        return torch.where((x[:, 0] * 4).frac().abs() > 0.5, 1.0, -1.0)[:, None]


def test_rules_that_only_fit_the_records_are_found_out_nearby():
    task = make_task("binary", 2000)
    x = task.evaluation.x.copy()
    x[:, 0] = np.where(x[:, 0] > 0, 0.2, 0.05)  # 0.8 and 0.2 of a ripple
    _, found = full(Ripples(), task=replace(task, evaluation=replace(task.evaluation, x=x)))
    assert found["fidelity"].value == 1.0
    assert found["fidelity_perturbed"].interval[1] < 0.9
    assert found["fidelity_perturbed"].n == 1000


def test_the_accuracy_of_the_rules_is_their_own():
    _, found = full(Rules())
    accuracy = found["accuracy"]
    detail = found["fidelity"].detail
    assert (accuracy.value, accuracy.anchors["model"]) == (
        detail["accuracy_of_tree"],
        detail["accuracy_of_model"],
    )
    assert accuracy.n == 1000


def test_rules_of_numbers_are_applied_and_judged_too():
    subject, found = full(make_model("regression", 3), "regression", 1000)
    assert {"r2", "r2_perturbed", "rules", "stability"} == set(found)
    assert {finding.status for finding in found.values()} == {"measured"}
    said = apply(found["rules"].detail["rules"], subject.evaluation.x)
    answers = subject.logits(subject.evaluation.x)[:, 0]
    assert np.corrcoef(said, answers)[0, 1] ** 2 > 0.6
    assert found["r2"].detail["curve"][0]["depth"] == 1


def test_a_curve_stops_where_trees_grow_no_more():
    x = records()[:, :1]
    curve = by_depth(
        lambda depth: DecisionTreeClassifier(max_depth=depth).fit(x, (x[:, 0] > 0.3).astype(int)),
        lambda tree: 1.0,
        "fidelity",
    )
    assert curve == [{"depth": 1, "rules": 2, "fidelity": 1.0}]
