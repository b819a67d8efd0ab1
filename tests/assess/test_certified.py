"""Certificates are believed where the truth is known, stay below attacks, and say what they are of."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import make_subject, make_task
from scipy import stats
from torch import nn

from fedsafe.assess import run_assessors
from fedsafe.assess.certified.assessor import Certified
from fedsafe.assess.certified.rounding import Clean
from fedsafe.assess.certified.smoothing import Smoothing, _votes, certified_radius, radii
from fedsafe.assess.requirements import Requirement, judge
from fedsafe.assess.robustness.assessor import Robustness
from fedsafe.data import Examples
from fedsafe.errors import ConfigError

RADII = (0.05, 0.2, 0.6)


def run(subject, tier="cheap", seed=0, **options):
    findings = Certified(**options)(subject, rng=np.random.default_rng(seed), tier=tier)
    certified = {
        (f.where["method"], f.where["norm"], f.where["radius"]): f
        for f in findings
        if f.metric == "certified.accuracy"
    }
    return findings, certified


def everything(subject, **options):
    effort = replace(Certified().cheap, examples=len(subject.evaluation), multiplications=1e12)
    return run(subject, cheap=effort, **options)


def image_network(seed=0, width=6):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(9 * width, 3)
        ).eval()  # fmt: skip


def test_certificates_of_a_linear_model_are_its_exact_robust_accuracy(linear, inputs, judged):
    weight, x = np.array([1.0, -2.0, 0.5, 0.0, 0.3, -0.4]), inputs(1500)
    start = x.astype(np.float64)
    logit = start @ weight + 0.1
    y = (logit + np.random.default_rng(1).normal(0, 0.5, len(x)) > 0).astype(np.int64)
    _, certified = everything(judged(linear(weight, 0.1), x, y), radii=RADII)
    for radius in RADII:
        sign = np.where(y == 1, 1.0, -1.0)[:, None]
        towards = -sign * weight[:4]  # what lowers the margin, in the features that may move
        room = np.where(
            towards > 0, np.minimum(radius, 1 - start[:, :4]), np.minimum(radius, start[:, :4] + 1)
        )
        exact = int(np.sum(sign[:, 0] * logit - (room * np.abs(towards)).sum(axis=1) > 0))
        for method in ("ibp", "crown"):
            finding = certified[method, "linf", radius]
            assert round(finding.value * finding.n) == exact
            assert (finding.bound, finding.n) == ("lower", 1500)
            assert int(finding.evidence.holds.sum()) == exact


def test_euclidean_certificates_of_a_linear_model_are_its_exact_robust_accuracy():
    subject = make_subject(
        "multiclass", nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), make_task("multiclass", 400)
    )
    weight = np.zeros((3, 64), np.float32)
    weight[1] = np.random.default_rng(0).normal(size=64)
    with torch.no_grad():
        subject.model[1].weight.copy_(torch.tensor(weight))
        subject.model[1].bias.copy_(torch.tensor([0.0, 0.0, -50.0]))
    x = np.clip(subject.evaluation.x, 0.3, 0.7)  # far from the bounds, so that the ball is whole
    logit = x.reshape(len(x), -1).astype(np.float64) @ weight[1]
    y = np.where(logit > 0, 1, 0)
    subject = replace(subject, evaluation=Examples(x=x, y=y), shards=None)
    _, certified = everything(subject, radii=(), l2_radii=(0.15, 0.3))
    for radius in (0.15, 0.3):
        exact = np.mean(np.abs(logit) > radius * np.linalg.norm(weight[1].astype(np.float64)))
        assert 0.1 < exact < 0.95
        for method in ("ibp", "crown"):
            assert certified[method, "l2", radius].value == pytest.approx(exact, abs=1 / 400)


def test_nothing_certified_is_ever_broken_and_the_brackets_hold():
    task = make_task("multiclass", 200)
    options = {"radii": (0.005, 0.02, 0.05), "l2_radii": (0.05, 0.2)}
    for seed in range(3):
        subject = make_subject("multiclass", image_network(seed), task)
        subject = replace(
            subject,
            evaluation=replace(task.evaluation, y=subject.predict(task.evaluation.x)),
            shards=None,
        )
        found = run_assessors(
            subject, ["performance", Robustness(**options), Certified(**options)], rng_seed=0, tier="cheap"
        )
        certified = [f for f in found["certified"] if f.metric == "certified.accuracy"]
        assert {f.status for f in certified} == {"measured"}
        for finding in certified:
            if "certified_below_attacked" in finding.diagnostics:
                assert finding.diagnostics["certified_below_attacked"]["violations"] == 0
        held = [f for f in certified if "certified_below_attacked" in f.diagnostics]
        assert len(held) == len(certified)
        assert max(f.value for f in certified if f.where["method"] == "crown") > 0.3
        for f in certified:
            if f.where["method"] == "ibp":
                twin = next(g for g in certified if g.where == {**f.where, "method": "crown"})
                assert f.value <= twin.value


def test_curves_fall_and_the_mean_radius_is_the_area_under_them():
    subject = make_subject("multiclass", image_network(), make_task("multiclass", 300))
    findings, certified = everything(subject)
    for method in ("ibp", "crown"):
        for norm in ("linf", "l2"):
            curve = [(r, f.value) for (m, n, r), f in certified.items() if (m, n) == (method, norm)]
            assert curve == sorted(curve)
            values = [value for _, value in curve]
            assert values == sorted(values, reverse=True)
            (mean,) = [
                f
                for f in findings
                if f.metric == "certified.mean_radius" and f.where == {"method": method, "norm": norm}
            ]
            steps = np.diff([0.0, *(radius for radius, _ in curve)])
            assert mean.value == pytest.approx(float(np.sum(steps * values)))
            assert [point["certified"] for point in mean.detail["curve"]] == values


def test_a_layer_without_bounds_is_named_and_smoothing_needs_none():
    model = nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 3)).eval()
    subject = make_subject("multiclass", model, make_task("multiclass", 60))
    small = Smoothing(scale=0.2, draws=200, selection=20, examples=15)
    findings = Certified(smoothing=small)(subject, rng=np.random.default_rng(0), tier="full")
    (said,) = [
        f for f in findings if f.metric == "certified.accuracy"
    ]  # once, not for each method, norm and radius
    assert said.status == "not_applicable"
    assert "LayerNorm" in said.reason
    asked = Requirement(
        metric="certified.accuracy", where={"method": "crown", "radius": 0.1}, op=">=", threshold=0.5
    )
    verdict = judge(asked, findings)
    assert (verdict.verdict, verdict.blocks) == ("unmeasured", True)
    assert "LayerNorm" in verdict.reason
    smoothed = [f for f in findings if f.metric == "certified.smoothed_accuracy"]
    assert {f.status for f in smoothed} == {"measured"}
    assert all(f.evidence is None for f in smoothed)  # another classifier: never held to attacks on the model


def test_a_tier_that_cannot_afford_a_bound_says_so():
    subject = make_subject("multiclass", image_network(), make_task("multiclass", 100))
    findings = Certified(cheap={"multiplications": 1e4})(subject, rng=np.random.default_rng(0), tier="cheap")
    said = [f for f in findings if f.status == "insufficient"]
    assert [dict(f.where) for f in said] == [{"method": "ibp"}, {"method": "crown"}]


def test_smoothing_of_a_linear_model_certifies_less_than_its_exact_radius_and_not_much_less(
    linear, inputs, judged
):
    """The class has probability ``Phi(margin / (scale |w|))``: the exact radius is the distance to the border."""
    weight, scale = np.array([1.0, -2.0, 0.5, 0.3, 0.0, 0.0]), 0.25
    x = inputs(60)
    logit = x.astype(np.float64) @ weight
    subject = judged(linear(weight, 0.0), x, (logit > 0).astype(np.int64))
    how = Smoothing(scale=scale, draws=4000, examples=60)
    found, abstained = radii(subject, subject.evaluation, how, np.random.default_rng(0))
    exact = np.abs(logit) / np.linalg.norm(weight)
    reached = np.minimum(exact, how.largest_radius)
    assert np.sum(found > exact) == 0
    assert np.sum(found[exact > 0.1] > 0.6 * reached[exact > 0.1]) >= 0.9 * np.sum(exact > 0.1)
    assert not (abstained & (exact > 0.1)).any()
    # Two thirds of the noise would certify too much: the test can fail.
    wrong, _ = radii(subject, subject.evaluation, replace(how, scale=scale * 2 / 3), np.random.default_rng(0))
    assert np.sum(wrong * 3 / 2 > exact + 0.02) > 5


def test_the_radius_of_a_vote_is_the_published_one():
    how = Smoothing(scale=0.25, draws=100_000, alpha=0.001)
    assert how.largest_radius == pytest.approx(0.953, abs=5e-4)
    least = stats.binomtest(99_000, 100_000).proportion_ci(0.998, "exact").low  # one-sided at 0.001
    assert least == pytest.approx(0.988989, abs=1e-6)
    assert certified_radius(99_000, how) == pytest.approx(0.25 * stats.norm.ppf(least))
    assert certified_radius(50_100, how) == 0.0
    assert certified_radius(0, how) == 0.0


def test_a_users_bound_is_named_by_its_path_and_a_broken_one_fails_alone(monkeypatch):
    def half(model, region, y, *, thorough):
        return torch.where(y == 0, 1.0, -1.0)

    def broken(model, region, y, *, thorough):
        raise RuntimeError("no bound")

    monkeypatch.setattr("kinds_of_task.half", half, raising=False)
    monkeypatch.setattr("kinds_of_task.broken", broken, raising=False)
    subject = make_subject("multiclass", image_network(), make_task("multiclass", 60))
    _, certified = run(
        subject, methods=("kinds_of_task:half", "kinds_of_task:broken", "ibp"), radii=(0.01,), l2_radii=()
    )
    right = subject.predict(subject.evaluation.x) == subject.evaluation.y
    assert certified["kinds_of_task:half", "linf", 0.01].value == pytest.approx(
        np.mean(right & (subject.evaluation.y == 0))
    )
    assert "no bound" in certified["kinds_of_task:broken", "linf", 0.01].reason
    assert certified["ibp", "linf", 0.01].status == "measured"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("crwn",)}, "did you mean 'crown'"),
        ({"radii": (0.0,)}, "radius 0.0"),
        ({"smoothing": {"sigma": 1.0}}, "sigma"),
        ({"full": {"example": 5}}, "did you mean 'examples'"),
        ({"smoothing": {"scale": -1.0}}, "positive scale"),
        ({"smoothing": {"draws": 0}}, "whole numbers"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(ConfigError, match=message):
        Certified(**options)


def cancelling():
    """A subject whose two layers cancel, its margins, and what single precision loses of them."""
    torch.manual_seed(0)
    subject = make_subject("binary")
    wide = subject.evaluation.x.shape[1]
    model = nn.Sequential(nn.Linear(wide, wide), nn.Linear(wide, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(wide))
        model[0].bias.fill_(3e5)
        model[1].weight.fill_(1.0)
        model[1].bias.fill_(-3e5 * wide)
    exact = copy.deepcopy(model).double()
    subject = replace(subject, model=model)
    truth = (exact(torch.tensor(subject.evaluation.x).double())[:, 0] > 0).long().numpy()
    subject = replace(subject, evaluation=replace(subject.evaluation, y=truth), shards=None)
    margins = np.abs(exact(torch.tensor(subject.evaluation.x).double())[:, 0].detach().numpy())
    return subject, margins, np.abs(margins - np.abs(subject.logits(subject.evaluation.x)[:, 0]))


def test_what_single_precision_rounds_off_is_never_certified_and_a_scorecard_says_when_it_is_much():
    subject, margins, lost = cancelling()
    assert lost.max() > 0.01
    _, certified = everything(subject, radii=(0.001,), l2_radii=())
    for method in ("ibp", "crown"):
        finding = certified[method, "linf", 0.001]
        assert not finding.evidence.holds[margins <= 2 * lost].any()
        assert finding.detail["rounding_room"] > lost.max()
        assert finding.detail["rounding"].startswith("enclosed")
        assert "most of a margin" in finding.detail["rounding_note"]
    plain = make_subject("multiclass", image_network(), make_task("multiclass", 60))
    for finding in everything(plain)[1].values():
        assert finding.detail["rounding_room"] < 0.01 * finding.detail["margin"]
        assert "rounding_note" not in finding.detail
        assert "TensorFloat" in finding.detail["assumed"]


def test_the_slack_of_a_users_bound_is_named_and_is_more_than_what_single_precision_lost(monkeypatch):
    subject, _, lost = cancelling()
    clean = Clean.of(subject, np.arange(len(lost)))
    assert (clean.slack >= 2 * lost).all()
    monkeypatch.setattr(
        "kinds_of_task.sure", lambda model, region, y, *, thorough: torch.ones(len(y)), raising=False
    )

    class Single(nn.Module):
        def forward(self, x):
            return x[:, :1].float() @ torch.ones(1, 1) if x.dtype == torch.float32 else None

    for model, words in (
        (subject.model, "4 times what single precision lost"),
        (Single(), "does not run in double"),
    ):
        found = run(replace(subject, model=model.eval()), methods=("kinds_of_task:sure",), radii=(0.1,))[1]
        assert words in found["kinds_of_task:sure", "linf", 0.1].detail["slack"]


def test_an_answer_that_is_not_finite_is_no_vote():
    class Root(nn.Module):
        def forward(self, x):
            return torch.sqrt(x[:, :1]) * 0 - 1  # class 0 where it has an answer

    subject = replace(make_subject("binary"), model=Root().eval())
    x = np.zeros_like(subject.evaluation.x[0])
    votes = _votes(subject, x, 1000, 0.25, torch.Generator().manual_seed(0))
    assert 400 < votes[0] < 600
    assert votes[1] == 0
