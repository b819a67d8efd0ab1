"""Figures of models that predict a number or the next token, where the truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from kinds_of_task import TOKENS, make_subject, make_task
from scipy import special
from sklearn import metrics
from torch import nn

from fedsafe.assess.fairness.assessor import Fairness
from fedsafe.assess.fairness.error_gaps import error_gaps
from fedsafe.assess.performance.assessor import Performance
from fedsafe.assess.performance.numbers import regression
from fedsafe.assess.resampling import clusters_of
from fedsafe.assess.scores import decide, measure
from fedsafe.data import Examples


def run(assessor, subject, seed=0):
    found = assessor(subject, rng=np.random.default_rng(seed), tier="cheap")
    return {(f.metric.split(".")[1], *f.where.values()): f for f in found}


class First(nn.Module):
    def forward(self, x):
        return x[:, :1]


class Successor(nn.Module):
    """Gives the next token of the alphabet a fixed lead in log-odds over the others."""

    def __init__(self, lead):
        super().__init__()
        self.lead = lead

    def forward(self, x):
        return self.lead * nn.functional.one_hot((x + 1) % TOKENS, TOKENS).float()


def test_regression_figures_equal_scikit_learns_in_the_targets_unit():
    subject = make_subject("regression", First())
    found = run(Performance(), subject)
    truth, predicted = (
        25 * (values + 1) for values in (subject.evaluation.y.astype(float), subject.evaluation.x[:, 0])
    )
    expected = {
        "r2": metrics.r2_score(truth, predicted),
        "mae": metrics.mean_absolute_error(truth, predicted),
        "rmse": metrics.root_mean_squared_error(truth, predicted),
    }
    for name, value in expected.items():
        finding = found[name,]
        assert finding.value == pytest.approx(value, rel=1e-5)
        assert finding.interval[0] < value < finding.interval[1]
        assert finding.detail["unit"] == "points"
    assert found["mae",].anchors["predicting_the_median"] == pytest.approx(
        np.abs(truth - np.median(truth)).mean(), rel=1e-5
    )
    assert found["jain_index",].status == "measured"


def test_a_constant_target_has_no_r2():
    subject = make_subject("regression", First())
    constant = replace(subject.evaluation, y=np.full(len(subject.evaluation), 0.25, np.float32))
    found = run(Performance(), replace(subject, evaluation=constant))
    assert (found["r2",].status, found["r2",].value) == ("insufficient", None)
    assert found["mae",].status == "measured"


def clustered(seed, holders=30, each=20):
    """Records of holders whose errors are alike: with clusters of 20, a plain interval is far too narrow."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(holders), each)
    error = 0.2 * rng.normal(size=holders)[owner] + 0.05 * rng.normal(size=len(owner))
    y = rng.uniform(-0.5, 0.5, len(owner)).astype(np.float32)
    return y + error, Examples(x=np.zeros((len(y), 6)), y=y, holders={"patient": owner.astype(str)})


def test_intervals_cover_only_where_whole_holders_are_drawn():
    target = make_task("regression").target
    truth = 25 * np.sqrt(0.2**2 + 0.05**2)  # root mean squared error
    inside, runs = {"holders": 0, "records": 0}, 150
    for seed in range(runs):
        predicted, examples = clustered(seed)
        for which, part in (("holders", examples), ("records", replace(examples, holders={}))):
            rng = np.random.default_rng(seed)
            found = regression(predicted, part, target, resamples=200, rng=rng, context={"data": "made"})
            rmse = found[2]
            assert (
                rmse.interval_method
                == f"bootstrap over {'holders (patient)' if part.holders else 'examples'}"
            )
            inside[which] += rmse.interval[0] <= truth <= rmse.interval[1]
    assert inside["holders"] >= 0.85 * runs  # a percentile interval of 30 clusters, nominally 0.95
    assert inside["records"] < 0.6 * runs


def test_few_holders_are_noted_and_the_fewest_are_drawn():
    holders = {"visit": np.arange(40).astype(str), "patient": (np.arange(40) // 4).astype(str)}
    examples = Examples(x=np.zeros((40, 2)), y=np.zeros(40, np.int64), holders=holders)
    assert clusters_of(examples).name == "holders (patient)"
    few = replace(examples, holders={"patient": (np.arange(40) // 10).astype(str)})
    assert (clusters_of(few).name, "too narrow" in clusters_of(few).note) == ("examples", True)


def test_next_token_figures_are_exact():
    lead = 2.0
    subject = make_subject("next_token", Successor(lead))
    found = run(Performance(), subject)
    hit = (subject.evaluation.x + 1) % TOKENS == subject.evaluation.y
    nll = np.log(np.exp(lead) + TOKENS - 1) - lead * hit.mean()
    assert found["accuracy",].value == pytest.approx(hit.mean())
    assert found["nll",].value == pytest.approx(nll, rel=1e-6)
    assert found["perplexity",].value == pytest.approx(np.exp(nll), rel=1e-6)
    assert found["perplexity",].detail["bits_per_token"] == pytest.approx(nll / np.log(2), rel=1e-6)
    assert found["perplexity",].anchors["uniform"] == TOKENS
    assert found["perplexity",].interval[0] < np.exp(nll) < found["perplexity",].interval[1]
    uniform = run(Performance(), make_subject("next_token", Successor(0.0)))
    assert uniform["perplexity",].value == pytest.approx(TOKENS)


def test_scores_of_records_are_losses_and_shares():
    rng = np.random.default_rng(0)
    outputs, y = rng.normal(size=(7, 3, 4)), rng.integers(0, 4, (7, 3))
    losses, scores = measure("next_token", outputs, y)
    log_p = special.log_softmax(outputs, axis=-1)
    expected = [-np.mean([log_p[i, j, y[i, j]] for j in range(3)]) for i in range(7)]
    assert losses == pytest.approx(expected)
    assert scores == pytest.approx((outputs.argmax(-1) == y).mean(axis=1))
    losses, scores = measure("regression", np.array([[0.5], [-3.0]]), np.array([0.0, 1.0], np.float32))
    assert losses == pytest.approx([0.25, 16.0])
    assert scores == pytest.approx([0.75, 0.0])
    assert decide(np.array([[0.0], [1e-9]])).tolist() == [0, 1]
    losses, _ = measure("binary", np.array([[800.0], [-800.0]]), np.array([0, 0]))
    assert losses == pytest.approx([800.0, 0.0])


def test_a_planted_difference_in_error_between_groups_is_found():
    class Worse(nn.Module):
        """Is off by 0.2 encoded, 5 points, for women."""

        def forward(self, x):
            return x[:, :1] + 0.2 * x[:, 4:5]

    subject = make_subject("regression", Worse())
    exact = replace(subject.evaluation, y=subject.evaluation.x[:, 0])
    found = run(Fairness(), replace(subject, evaluation=exact))
    assert found["absolute_error", "sex", "Female"].value == pytest.approx(5.0, rel=1e-5)
    assert found["absolute_error", "sex", "Male"].value == pytest.approx(0.0, abs=1e-5)
    gap = found["absolute_error_difference", "sex"]
    assert gap.value == pytest.approx(5.0, rel=1e-4)
    assert (gap.detail["low"], gap.detail["high"]) == ("Male", "Female")


def test_the_gap_of_alike_groups_has_an_interval_that_holds_zero():
    inside, runs = 0, 200
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        groups = rng.choice(["A", "B", "C", "D"], 400, p=[0.4, 0.3, 0.2, 0.1])
        examples = Examples(x=np.zeros((400, 6)), y=np.zeros(400, np.float32), groups={"g": groups})
        *_, gap = error_gaps(
            rng.exponential(1.0, 400),
            examples,
            "g",
            groups,
            minimum=30,
            resamples=200,
            rng=rng,
            context={"data": "made"},
        )
        inside += gap.interval[0] == 0
        assert gap.anchors["null_gap"] > 0
    assert inside >= 0.91 * runs


def test_small_groups_are_insufficient_for_numbers_too():
    subject = make_subject("regression", First(), make_task("regression", 50))
    found = run(Fairness(), subject)
    assert {f.status for (name, *_), f in found.items() if "error" in name} == {"insufficient"}
    assert found["absolute_error_difference", "sex"].detail["left_out"] == ["Female", "Male"]


def test_predictions_of_a_number_are_in_its_own_unit():
    subject = make_subject("regression", First())
    assert subject.values(np.array([[-1, 0, 0, 0, 0, 1], [0.5, 0, 0, 0, 0, 1]], np.float32)).tolist() == [
        0,
        37.5,
    ]
