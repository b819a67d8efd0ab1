"""A model is compared with the last accepted one in pairs: worse, and not only different."""

from dataclasses import replace

import numpy as np
import pytest
from kinds_of_task import KINDS, make_model, make_subject
from torch import nn

from fedsafe.assess import evidence_of, run_assessors
from fedsafe.assess.comparing import NOTHING_BEFORE, compare, share_of
from fedsafe.findings import Evidence, Pairs, mcnemar, paired_newcombe, proportion

CHANGE, LOSS, ACCURACY = "comparison.accuracy_change", "comparison.loss_change", "performance.accuracy"


def compared(subject, assessors=("performance",)):
    return run_assessors(subject, assessors, rng_seed=0, tier="cheap").get("comparison", [])


@pytest.fixture
def pair(linear, inputs, judged):
    x = inputs(600)
    y = (x[:, 0] > 0).astype(np.int64)
    good, worse = linear([1.0, 0, 0, 0, 0, 0], 0.0), linear([1.0, 1.5, 0, 0, 0, 0], 0.0)
    return judged(worse, x, y, previous=good, round=4)


def test_a_worse_model_is_worse_and_not_only_different(pair):
    change, loss = compared(pair)
    correct = pair.predict(pair.evaluation.x) == pair.evaluation.y
    pairs = Pairs(both=int(correct.sum()), first=0, second=int((~correct).sum()), neither=0)
    assert change.metric == CHANGE
    assert change.where == {"of": ACCURACY}
    assert change.value == pytest.approx(correct.mean() - 1)
    assert change.interval == paired_newcombe(pairs)
    assert change.interval[1] < 0
    assert change.detail["mcnemar_p_value"] == mcnemar(pairs) < 1e-6
    assert loss.metric == LOSS
    assert loss.interval[0] <= loss.value <= loss.interval[1]


def test_two_equal_models_do_not_differ(pair):
    change, loss = compared(replace(pair, model=pair.previous))
    assert (change.value, change.detail["mcnemar_p_value"]) == (0.0, 1.0)
    assert change.interval[0] < 0 < change.interval[1]
    assert loss.value == 0.0


def test_other_shares_are_compared_with_what_was_found_of_the_accepted_model(pair):
    def attacked(holds, rows):
        where = {"attack": "pgd", "norm": "linf", "radius": 0.1}
        evidence = Evidence(rows=np.asarray(rows), holds=np.asarray(holds, dtype=bool))
        return proportion(
            "robustness.attacked_accuracy", sum(holds), len(holds), evidence=evidence, where=where
        )

    now, then = attacked([1, 0, 0, 1], [2, 5, 7, 8]), attacked([1, 1, 1], [2, 5, 7])
    subject = replace(pair, earlier=evidence_of({"robustness": [then]}))
    assert list(subject.earlier) == [share_of(then)]
    change, *_ = compare(subject, {"robustness": [now]}, "cheap")
    assert change.where == {"of": "robustness.attacked_accuracy", **now.where}
    assert change.detail["counts"] == [1, 0, 2, 0]  # the fourth example was not seen before
    assert change.n == 3


def test_the_cheap_tier_measures_fewer_examples_anew_and_none_twice(linear, inputs, judged):
    x = inputs(1500)
    y = (x[:, 0] > 0).astype(np.int64)
    good = linear([1.0, 0, 0, 0, 0, 0], 0.0)
    subject = judged(linear([1.0, 1.5, 0, 0, 0, 0], 0.0), x, y, previous=good, round=4)
    change, loss = compared(subject)
    assert (change.n, loss.n) == (1000, 1000)
    earlier = {(ACCURACY, ()): Evidence(rows=np.arange(1500), holds=np.ones(1500, bool))}
    change, loss = compared(replace(subject, earlier=earlier))
    assert (change.n, loss.n) == (1500, 1000)
    full = run_assessors(subject, ["performance"], rng_seed=0, tier="full")["comparison"]
    assert [finding.n for finding in full] == [1500, 1500]


def test_before_a_model_is_accepted_there_is_nothing_to_compare_with(pair):
    found = compared(replace(pair, previous=None))
    assert [(f.metric, f.status, f.detail[NOTHING_BEFORE]) for f in found] == [
        (CHANGE, "not_applicable", True),
        (LOSS, "not_applicable", True),
    ]
    assert compared(replace(pair, previous=None, round=0)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_has_its_loss_compared(kind):
    found = {finding.metric: finding for finding in compared(make_subject(kind))}
    assert found[LOSS].status == "measured"
    assert found[CHANGE].status == ("measured" if kind in ("binary", "multiclass") else "not_applicable")


def test_shared_rows_are_the_same_in_every_round_so_that_models_are_compared_on_them():
    subject = make_subject("binary")
    later = replace(subject, round=9, model=make_model("binary", 3))
    assert np.array_equal(subject.shared_rows(50), later.shared_rows(50))
    assert set(subject.shared_rows(20)) <= set(subject.shared_rows(50))


def test_a_previous_model_that_breaks_is_a_failed_comparison(pair):
    class Broken(nn.Module):
        def forward(self, x):
            return x[:, :1] * float("nan")

    change, loss = compared(replace(pair, previous=Broken().eval()))
    assert change.status == "not_applicable"
    assert loss.status == "failed"
    assert "not finite" in loss.reason
