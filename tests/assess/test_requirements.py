"""A requirement passes only if the end of the interval that hurts meets it."""

import numpy as np
import pytest

from fedsafe.assess import Requirement, judge, parse_requirements
from fedsafe.assess.comparing import NOTHING_BEFORE
from fedsafe.errors import ConfigError
from fedsafe.findings import (
    OVER_ALL_LOOKS,
    clopper_pearson,
    confidence_of_look,
    difference,
    estimate,
    newcombe,
    not_measured,
    proportion,
    wilson,
)

ACCURACY = "performance.accuracy"
GAP = "fairness.demographic_parity_difference"


def require(metric=ACCURACY, op=">=", threshold=0.5, **more):
    return Requirement(metric=metric, op=op, threshold=threshold, **more)


def between(low, high, metric=ACCURACY, **more):
    return estimate(metric, (low + high) / 2, interval=(low, high), method="made", **more)


@pytest.mark.parametrize(
    ("op", "low", "high", "verdict"),
    [
        (">=", 0.50, 0.60, "pass"),
        (">=", 0.49, 0.60, "undecided"),
        (">=", 0.40, 0.50, "undecided"),
        (">=", 0.40, 0.49, "fail"),
        (">", 0.50, 0.60, "undecided"),
        (">", 0.51, 0.60, "pass"),
        (">", 0.40, 0.50, "fail"),
        ("<=", 0.40, 0.50, "pass"),
        ("<=", 0.40, 0.51, "undecided"),
        ("<=", 0.50, 0.60, "undecided"),
        ("<=", 0.51, 0.60, "fail"),
        ("<", 0.40, 0.50, "undecided"),
        ("<", 0.40, 0.49, "pass"),
        ("<", 0.50, 0.60, "fail"),
    ],
)
def test_verdict_follows_the_end_that_hurts(op, low, high, verdict):
    found = judge(require(op=op), [between(low, high)])
    assert found.verdict == verdict
    assert found.interval == (low, high)
    assert found.reason


@pytest.mark.parametrize(
    ("op", "value", "verdict"), [("<=", 3.0, "pass"), ("<", 3.0, "fail"), (">", 2.0, "pass")]
)
def test_without_an_interval_the_value_decides(op, value, verdict):
    threshold = 3.0 if op.startswith("<") else 1.0
    found = judge(
        require("privacy.epsilon", op, threshold), [estimate("privacy.epsilon", value, bound="upper")]
    )
    assert (found.verdict, found.interval, found.value) == (verdict, None, value)
    assert "upper without an interval" in found.reason


@pytest.mark.parametrize("status", ["insufficient", "not_applicable", "unreliable", "failed"])
def test_unmeasured_is_never_a_pass(status):
    for op in (">=", "<="):
        found = judge(require(op=op), [not_measured(ACCURACY, "because", status=status)])
        assert (found.verdict, found.value, found.blocks) == ("unmeasured", None, True)
        assert f"{status}: because" in found.reason
    assert judge(require(), []).verdict == "unmeasured"


def test_a_requirement_that_matches_nothing_says_what_there_is():
    finding = between(0.1, 0.2, GAP, where={"attribute": "sex"})
    found = judge(require(GAP, "<=", 0.3, where={"attribute": "race"}), [finding])
    assert found.verdict == "unmeasured"
    assert "'sex'" in found.reason


def test_several_matches_give_the_worst_verdict():
    good, unsure, bad = between(0.6, 0.7), between(0.4, 0.6), between(0.1, 0.2)
    lost = not_measured(ACCURACY, "lost")
    assert judge(require(), [good, unsure, lost, bad]).verdict == "fail"
    assert judge(require(), [good, unsure, lost]).verdict == "unmeasured"
    assert judge(require(), [good, unsure]).verdict == "undecided"
    assert judge(require(), [good, good]).verdict == "pass"


def test_where_selects_by_subset_and_numbers_by_value():
    hard = between(0.1, 0.2, "robustness.attacked_accuracy", where={"attack": "pgd", "radius": 0.5})
    easy = between(0.8, 0.9, "robustness.attacked_accuracy", where={"attack": "pgd", "radius": 0.1})
    for where, verdict in (
        ({"radius": 0.1}, "pass"),
        ({"radius": 0.5}, "fail"),
        ({"attack": "pgd"}, "fail"),
        ({"radius": 0.2}, "unmeasured"),
        ({"norm": "linf"}, "unmeasured"),
    ):
        assert judge(require("robustness.attacked_accuracy", where=where), [hard, easy]).verdict == verdict


@pytest.mark.parametrize(("method", "remake"), [("wilson", wilson), ("clopper-pearson", clopper_pearson)])
def test_a_share_is_judged_at_the_confidence_required(method, remake):
    finding = proportion(ACCURACY, 560, 1000, method=method)
    found = judge(require(threshold=0.52, confidence=0.999), [finding])
    assert found.interval == remake(560, 1000, 0.999)
    assert (found.verdict, judge(require(threshold=0.52), [finding]).verdict) == ("undecided", "pass")
    assert "made anew at 0.999" in found.reason
    assert judge(require(threshold=0.58, confidence=0.5), [finding]).verdict == "fail"


def test_an_interval_of_unknown_make_does_not_decide_above_its_own_confidence():
    gap = "fairness.accuracy_difference"
    finding = between(0.7, 0.9, gap)
    strict = judge(require(gap, ">=", 0.1, confidence=0.99), [finding])
    assert strict.verdict == "undecided"
    assert "measured at confidence 0.95, 0.99 was asked" in strict.reason
    lax = judge(require(gap, ">=", 0.1, confidence=0.9), [finding])
    assert lax.verdict == "pass"
    assert "0.95" in lax.reason


def test_a_difference_of_shares_is_judged_at_the_confidence_required():
    gap = "fairness.accuracy_difference"
    finding = difference(gap, 90, 100, 10, 100)
    found = judge(require(gap, ">=", 0.1, confidence=0.999), [finding])
    assert found.interval == newcombe(90, 100, 10, 100, 0.999)
    assert "made anew at 0.999" in found.reason


def test_one_look_of_several_is_judged_at_its_own_confidence():
    finding = proportion(ACCURACY, 560, 1000)
    alone, one_of_many = judge(require(threshold=0.525), [finding]), 1 - 0.05 / 20
    found = judge(require(threshold=0.525), [finding], confidence=one_of_many)
    assert (alone.verdict, found.verdict) == ("pass", "undecided")
    assert found.interval == wilson(560, 1000, one_of_many)
    line = found.to_json(3)
    assert (line["confidence"], line["judged_confidence"], line["blocks"]) == (0.95, one_of_many, True)


@pytest.mark.parametrize(("spending", "kept"), [("half_last", True), ("bonferroni", True), ("none", False)])
def test_over_a_whole_run_no_more_verdicts_are_wrong_than_is_allowed(spending, kept):
    """Ten looks at models that just meet the threshold: each fail is wrong, and half of the error is on that side."""
    rng, runs, due = np.random.default_rng(3), 1000, list(range(1, 11))
    rule = require(threshold=0.8, confidence=0.9)
    confidences = [confidence_of_look(number, due, 0.9, spending) for number in due]
    wrong = 0
    for counts in rng.binomial(400, 0.8, size=(runs, len(due))):
        verdicts = [
            judge(rule, [proportion(ACCURACY, int(k), 400)], confidence=confidence).verdict
            for k, confidence in zip(counts, confidences, strict=True)
        ]
        wrong += "fail" in verdicts
    # 5 % are allowed; three standard errors more are chance.
    assert (wrong / runs <= 0.05 + 3 * 0.0069) == kept


def test_a_finding_that_shares_its_error_over_the_looks_does_not_share_it_twice():
    finding = proportion(ACCURACY, 560, 1000, detail={OVER_ALL_LOOKS: True})
    found = judge(require(threshold=0.525), [finding], confidence=1 - 0.05 / 20)
    assert (found.verdict, found.confidence) == ("pass", 0.95)


def test_a_comparison_does_not_bind_before_a_model_is_accepted():
    change = "comparison.accuracy_change"
    first = not_measured(change, "nothing yet", status="not_applicable", detail={NOTHING_BEFORE: True})
    for where in ({}, {"of": ACCURACY}):
        found = judge(require(change, ">=", -0.01, where=where), [first])
        assert (found.verdict, found.blocks) == ("unmeasured", False)
        assert "does not bind yet: nothing yet" in found.reason
    assert judge(require(change, ">=", -0.01), [not_measured(change, "lost")]).blocks


def test_only_a_must_that_did_not_pass_blocks():
    good, bad = between(0.6, 0.7), between(0.1, 0.2)
    assert judge(require(), [bad]).blocks
    assert not judge(require(severity="should"), [bad]).blocks
    assert not judge(require(), [good]).blocks


def test_json_form_has_the_keys_of_the_run_folder():
    line = judge(require(GAP, "<=", 0.3), [between(0.1, 0.2, GAP, where={"attribute": "sex"})]).to_json(7)
    keys = "round metric where op threshold confidence severity verdict value interval reason judged_confidence blocks"
    assert list(line) == keys.split()
    assert (line["round"], line["verdict"], line["interval"]) == (7, "pass", [0.1, 0.2])
    assert line["reason"].startswith("attribute sex: ")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"metric": ACCURACY, "op": ">=", "treshold": 1}, "did you mean 'threshold'"),
        (
            {"metric": "performance.acuracy", "op": ">=", "threshold": 1},
            "did you mean 'performance.accuracy'",
        ),
        ({"metric": ACCURACY, "op": ">="}, "lacks threshold"),
        ({"metric": ACCURACY, "op": "=>", "threshold": 1}, "op '=>'"),
        ({"metric": ACCURACY, "op": ">=", "threshold": "1"}, "threshold '1'"),
        ({"metric": ACCURACY, "op": ">=", "threshold": True}, "threshold True"),
        ({"metric": ACCURACY, "op": ">=", "threshold": float("nan")}, "finite"),
        ({"metric": ACCURACY, "op": ">=", "threshold": 1, "confidence": 95}, "between 0 and 1"),
        ({"metric": ACCURACY, "op": ">=", "threshold": 1, "severity": "may"}, "severity 'may'"),
        ({"metric": ACCURACY, "op": ">=", "threshold": 1, "where": {"a": [1]}}, "where"),
        ("accuracy > 1", "not a table"),
        ({"metric": ACCURACY, "op": ">=", "threshold": 90}, ">= 90 would never pass; a share of 90 % is 0.9"),
        ({"metric": ACCURACY, "op": "<=", "threshold": 90}, "<= 90 would always pass"),
        ({"metric": ACCURACY, "op": ">=", "threshold": -0.1}, "would always pass"),
        (
            {"metric": "performance.nll", "op": "<", "threshold": -2},
            "between 0 and inf: < -2 would never pass",
        ),
    ],
)
def test_a_wrong_requirement_is_refused_by_position_and_name(table, words):
    good = {"metric": ACCURACY, "op": ">=", "threshold": 0.8}
    assert parse_requirements([good]) == (require(threshold=0.8),)
    with pytest.raises(ConfigError, match="requirement 2") as error:
        parse_requirements([good, table])
    assert words in str(error.value)


def test_a_threshold_at_the_end_of_the_range_is_a_requirement():
    for metric, threshold in ((ACCURACY, 0.0), (ACCURACY, 1.0), (GAP, 0.0), ("privacy.epsilon", 1e6)):
        assert require(metric, ">=", threshold).threshold == threshold
