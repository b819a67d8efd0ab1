"""A model that breaks a principle by construction is caught, and one that keeps it passes with a bound."""

import numpy as np
import pytest
import torch
from kinds_of_task import make_subject, make_task
from torch import nn

from fedsafe.assess import Principle, Requirement, Subject, judge
from fedsafe.assess.principles.assessor import Principles
from fedsafe.data import load_task
from fedsafe.errors import ConfigError

INVARIANCE, DIRECTION, CASES = (
    f"principles.{name}_violations" for name in ("invariance", "direction", "case")
)


class Linear(nn.Module):
    def __init__(self, weight, bias=0.0):
        super().__init__()
        self.weight, self.bias = torch.tensor(weight, dtype=torch.float32), bias

    def forward(self, x):
        return (x @ self.weight)[:, None] + self.bias


def run(model, kind="binary", n=1000, **options):
    subject = make_subject(kind, model, make_task(kind, n))
    return Principles(**options)(subject, rng=np.random.default_rng(0), tier="cheap")


def find(findings, metric, **where):
    (found,) = [f for f in findings if f.metric == metric and where.items() <= f.where.items()]
    return found


def test_a_model_planted_to_use_sex_is_caught():
    subject = make_subject("binary", Linear([1, 0, 0, 0, -0.3, 0.3]), make_task("binary", 1000))
    (finding,) = Principles()(subject, rng=np.random.default_rng(0), tier="cheap")
    # The other sex changes the decision exactly where the rest lies between the two thresholds.
    exact = int(np.sum(np.abs(subject.evaluation.x[:, 0]) < 0.3))
    assert finding.where == {"principle": "not by sex", "column": "sex"}
    assert round(finding.value * finding.n) == exact > 200
    assert {row["to"] for row in finding.detail["by_value"]} == {"Female", "Male"}
    requirement = Requirement(metric=INVARIANCE, op="<=", threshold=0.05)
    assert judge(requirement, [finding]).verdict == "fail"


def test_a_model_that_ignores_sex_passes_with_the_bound_of_its_interval():
    (finding,) = run(Linear([1, -1, 0.5, 0, 0.7, 0.7]))
    assert (finding.value, finding.n) == (0.0, 1000)
    assert 0 < finding.interval[1] < 0.005
    assert judge(Requirement(metric=INVARIANCE, op="<=", threshold=0.005), [finding]).verdict == "pass"
    # A thousand examples cannot show less than their interval's end.
    tight = judge(Requirement(metric=INVARIANCE, op="<=", threshold=0.001), [finding])
    assert tight.verdict == "undecided"


def test_both_features_of_a_one_hot_group_move_together():
    class Valid(nn.Module):
        def forward(self, x):
            assert bool((x[:, 4:].sum(dim=1) == 1).all())
            assert bool(((x[:, 4:] == 0) | (x[:, 4:] == 1)).all())
            return x[:, :1]

    assert run(Valid())[0].value == 0.0


@pytest.mark.parametrize(
    ("weight", "violated"), [([1.0, 0, 0, 0, 0, 0], 0.0), ([-1.0, 0, 0, 0, 0, 0], 1.0), ([0.0] * 6, 0.0)]
)
def test_a_direction_is_kept_by_a_rising_model_and_broken_by_a_falling_one(weight, violated):
    principle = Principle(
        id="more a0", text="More a0 must not lower the score.", kind="direction", column="a0"
    )
    finding = find(run(Linear(weight), principles=(principle,)), DIRECTION)
    assert finding.value == violated
    assert finding.interval[0] <= violated <= finding.interval[1]


def test_a_direction_that_one_level_breaks_is_counted_only_below_that_level():
    class Dip(nn.Module):
        """Rises, but for a dip at a0 = 2.5 in its own unit, which is tried: 0.5 encoded."""

        def forward(self, x):
            dip = (x[:, :1] - 0.5).abs() < 0.01
            return torch.where(dip, -3.0, x[:, :1])

    principle = Principle(
        id="more a0", text="More a0 must not lower the score.", kind="direction", column="a0"
    )
    subject = make_subject("binary", Dip(), make_task("binary", 1000))
    findings = Principles(principles=(principle,))(subject, rng=np.random.default_rng(0), tier="cheap")
    finding = find(findings, DIRECTION)
    below = np.mean(subject.evaluation.x[:, 0] < 0.49)
    assert finding.value == pytest.approx(below, abs=0.012)
    assert find(findings, INVARIANCE).value == 0.0


def test_tolerance_of_a_number_is_a_share_of_the_targets_range():
    # Changing sex moves the prediction by 0.1 encoded: 5 % of the range.
    model = Linear([1, 0, 0, 0, 0.0, 0.1])
    for tolerance, value in ((0.04, 1.0), (0.06, 0.0)):
        principle = Principle(
            id="p", text="Sex moves little.", kind="invariance", column="sex", tolerance=tolerance
        )
        found = run(model, "regression", principles=(principle,), defaults=False)
        assert find(found, INVARIANCE).value == value


def case(identity, expected, **record):
    columns = {"a0": "0", "a1": "0", "a2": "0", "a3": "0", "sex": "Male", **record}
    return Principle(id=identity, text="A given answer.", kind="case", record=columns, expected=expected)


def test_given_cases_are_promises_and_not_a_sample():
    cases = (case("high", "yes", a0="4"), case("low", "no", a0="-4"), case("wrong", "yes", a0="-4"))
    finding = find(run(Linear([1.0, 0, 0, 0, 0, 0]), principles=cases), CASES)
    assert (finding.value, finding.bound, finding.n) == (pytest.approx(1 / 3), "exact", 3)
    assert [row["kept"] for row in finding.detail["cases"]] == [True, True, False]
    number = case("number", "25")
    found = run(Linear([0.0] * 6), "regression", principles=(number,))
    assert find(found, CASES).value == 0.0


@pytest.mark.parametrize(
    ("principle", "words"),
    [
        (case("typo", "yes", sex="Mael"), "nothing readable in the column 'sex'"),
        (case("class", "perhaps"), "'perhaps' is none of the classes"),
        (Principle(id="p", text=".", kind="case", record={"a0": "1"}, expected="yes"), "lack the columns"),
        (Principle(id="p", text=".", kind="direction", column="b"), "has no column 'b'"),
        (Principle(id="p", text=".", kind="invariance", column="sex", order=("X", "Y")), "no category 'X'"),
        (
            Principle(id="p", text=".", kind="direction", column="a0", outcome="perhaps"),
            "none of the classes",
        ),
        (Principle(id="p", text=".", kind="direction", column="a0", order=("1",)), "is numeric"),
    ],
)
def test_a_principle_that_cannot_be_tested_is_failed_by_name_and_the_others_are_tested(principle, words):
    findings = run(Linear([1.0, 0, 0, 0, 0, 0]), principles=(principle,))
    (failed,) = [f for f in findings if f.status == "failed"]
    assert f"{principle.id!r}" in failed.reason
    assert words in failed.reason
    assert find(findings, INVARIANCE, principle="not by sex").value == 0.0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "always"}, "kind 'always'"),
        ({"kind": "invariance"}, "needs 'column'"),
        ({"kind": "case", "record": {"a": "1"}}, "needs 'expected'"),
        ({"kind": "invariance", "column": "a", "tolerance": -1.0}, "tolerance -1.0"),
    ],
)
def test_an_incomplete_principle_is_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        Principle(id="p", text="A sentence.", **fields)


def test_two_principles_of_one_name_are_refused():
    twice = Principle(id="not by sex", text="Again.", kind="invariance", column="sex")
    with pytest.raises(ConfigError, match="two principles are named 'not by sex'"):
        run(Linear([0.0] * 6), principles=(twice,))


def test_adult_comes_with_education_and_minimum_functionality():
    task = load_task("adult")
    names = list(task.schema.feature_names)
    good = np.zeros(len(names))
    levels = [name for name in names if name.startswith("education=")][:16]
    for rank, name in enumerate(levels):
        good[names.index(name)] = rank / 15
    good[names.index("capital-gain")] = 2.0
    bad = good.copy()
    bad[names.index("education=Doctorate")] = 0.9  # less than a professional school's 14/15
    found = {}
    for which, weight in (("good", good), ("bad", bad)):
        subject = Subject.outside(Linear(weight, -1.5), task)
        findings = Principles(full=20_000)(subject, rng=np.random.default_rng(0), tier="full")
        found[which] = find(findings, DIRECTION, principle="education")
        assert {f.where.get("column") for f in findings} == {"race", "sex", "education", None}
        assert find(findings, CASES).value == 0.0
        assert find(findings, INVARIANCE, column="sex").value == 0.0
    assert found["good"].value == 0.0
    # Only a professional school is worth more than a doctorate here, and only its graduates could lose.
    own = task.evaluation.x[:, [names.index(name) for name in levels]].sum(axis=0)
    assert (found["bad"].n, found["bad"].value) == (own[:15].sum(), pytest.approx(own[14] / own[:15].sum()))
