"""Attacks are believed where the truth is known: linear models, planted adversarials, masked gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import make_subject, make_task
from torch import nn

from fedsafe.assess.robustness import assessor as robustness
from fedsafe.assess.robustness import attacking, attacks
from fedsafe.assess.robustness.assessor import Robustness
from fedsafe.assess.robustness.attacks import pgd
from fedsafe.assess.robustness.effort import Effort
from fedsafe.assess.robustness.regions import Ball, Box
from fedsafe.data import Examples
from fedsafe.errors import ConfigError

RADII = (0.05, 0.2, 0.6)
SMALL = Effort(examples=600, steps=10, restarts=2, own={"square": (40, 1), "cw-l2": (20, 3)}, checked=16)


def run(subject, seed=0, tier="cheap", **options):
    findings = Robustness(**options)(subject, rng=np.random.default_rng(seed), tier=tier)
    attacked = [f for f in findings if f.metric == "robustness.attacked_accuracy"]
    return findings, {(f.where["attack"], f.where["radius"]): f for f in attacked}


def replace_attacks(monkeypatch, **made):
    for module in (attacking, robustness):
        monkeypatch.setattr(module, "ATTACKS", {**attacks.ATTACKS, **made})


def worst_change(x, weight, radius):
    """The largest possible increase of ``weight @ x`` within the radius, the bounds and the free features."""
    room = np.where(weight > 0, np.minimum(radius, 1 - x[:, :4]), np.minimum(radius, x[:, :4] + 1))
    return (room * np.abs(weight)).sum(axis=1)


@pytest.mark.parametrize("tier", ["cheap", "full"])
def test_attack_on_a_linear_model_equals_its_exact_robust_accuracy(linear, inputs, judged, tier):
    weight, x = np.array([1.0, -2.0, 0.5, 0.0, 0.3, -0.4]), inputs(600)
    logit = x.astype(np.float64) @ weight + 0.1
    y = (logit + np.random.default_rng(1).normal(0, 0.5, len(x)) > 0).astype(np.int64)
    _, attacked = run(judged(linear(weight, 0.1), x, y), tier=tier, radii=RADII, full=SMALL)
    for radius in RADII:
        signed = np.where(y == 1, -1.0, 1.0)
        worst = np.where(
            y == 1,
            -logit + worst_change(x.astype(np.float64), -weight[:4], radius),
            logit + worst_change(x.astype(np.float64), weight[:4], radius),
        )
        exact = int(np.sum((worst < 0) & (signed * logit < 0)))
        named = {name for name, _ in attacked}
        assert named >= {"fgsm", "pgd", "worst"} | (
            {"apgd-ce", "apgd-t", "square"} if tier == "full" else set()
        )
        for attack in named:
            finding = attacked[attack, radius]
            assert round(finding.value * finding.n) == exact
            assert finding.bound == "upper"


def test_attack_on_several_linear_classes_comes_close_and_never_beats_the_truth(linear, inputs, judged):
    rng = np.random.default_rng(2)
    weight, x = rng.normal(size=(4, 6)), inputs(500)
    logits = x.astype(np.float64) @ weight.T
    y = logits.argmax(axis=1)
    _, attacked = run(
        judged(linear(weight, np.zeros(4)), x, y, classes=4), tier="full", radii=RADII, full=SMALL
    )
    for radius in RADII:
        worst = np.full(len(x), -np.inf)
        for other in range(4):
            towards = weight[other, :4] - weight[y, :4]
            start = x[:, :4].astype(np.float64)
            room = np.where(towards > 0, np.minimum(radius, 1 - start), np.minimum(radius, start + 1))
            margin = logits[:, other] - logits[np.arange(len(x)), y] + (room * np.abs(towards)).sum(axis=1)
            worst = np.where(y == other, worst, np.maximum(worst, margin))
        exact = np.mean(worst < 0)
        assert exact <= attacked["pgd", radius].value <= exact + 0.01
        assert exact <= attacked["worst", radius].value <= attacked["pgd", radius].value


class Pit(nn.Module):
    """Positive everywhere but in a small ball: one step of the full radius jumps over it."""

    def __init__(self, centre, depth):
        super().__init__()
        self.register_buffer("centre", torch.tensor(centre, dtype=torch.float32))
        self.depth = depth

    def forward(self, x):
        return (x[:, :4] - self.centre).norm(dim=1, keepdim=True) - self.depth


def test_pgd_finds_a_planted_adversarial_that_one_step_misses(inputs, judged):
    centre = np.array([0.1, -0.2, 0.15, 0.0])
    x = inputs(400)
    x[:, :4] = centre + np.random.default_rng(3).uniform(0.12, 0.28, (400, 4)) * np.where(x[:, :4] > 0, 1, -1)
    subject = judged(Pit(centre, 0.05), x, np.ones(400, dtype=np.int64))
    _, attacked = run(subject, radii=(0.3,))
    assert attacked["pgd", 0.3].anchors["clean"] == 1.0
    assert attacked["pgd", 0.3].value == 0.0
    assert attacked["fgsm", 0.3].value > 0.9


class Masked(nn.Module):
    """A linear model behind rounding: its gradient is zero almost everywhere."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(torch.round(x * 20) / 20)


def test_masked_gradients_are_called_unreliable_and_not_robust(linear, inputs, judged):
    weight, x = [1.0, -2.0, 0.5, 0.0, 0.0, 0.0], inputs(800)
    model = Masked(linear(weight, 0.0))
    y = (model(torch.tensor(x))[:, 0] > 0).long().numpy()
    _, attacked = run(judged(model, x, y), radii=(0.5,))
    finding = attacked["pgd", 0.5]
    assert (finding.status, finding.value) == ("unreliable", None)
    assert "random edges" in finding.reason


@pytest.mark.parametrize(
    ("cheat", "rule"),
    [
        (lambda x, box: box.project(x) + 0.3 * torch.tensor([1.0, 0, 0, 0, 0, 0]), "radius"),
        (lambda x, box: torch.cat([torch.full_like(x[:, :1], 1.02), x[:, 1:]], dim=1), "public bounds"),
        (lambda x, box: x[:, [0, 1, 2, 3, 5, 4]], "fixed feature"),
    ],
)
def test_adversarials_outside_the_threat_model_are_unreliable(
    linear, inputs, judged, monkeypatch, cheat, rule
):
    replace_attacks(monkeypatch, pgd=lambda forward, x, y, box, **_: cheat(x, box))
    x = inputs(300)
    x[:, 0] = np.clip(x[:, 0], 0.97, 0.99)  # the bound is nearer than the radius
    subject = judged(linear([1.0, 0, 0, 0, 0, 0], 0.0), x, np.ones(300, dtype=np.int64))
    _, attacked = run(subject, radii=(0.1,))
    assert attacked["pgd", 0.1].status == "unreliable"
    assert rule in attacked["pgd", 0.1].reason
    assert attacked["fgsm", 0.1].status == "measured"


def test_an_attack_that_weakens_with_the_radius_is_unreliable(perceptron, inputs, judged, monkeypatch):
    def lazy(forward, x, y, box, **options):
        wide = float((box.high - box.low).max()) > 0.5
        return x if wide else attacks.pgd(forward, x, y, box, **options)

    replace_attacks(monkeypatch, pgd=lazy, fgsm=lambda forward, x, y, box, **_: x)
    monkeypatch.setattr(attacking, "random_edges", lambda forward, x, y, box, **_: x)
    x = inputs(500)
    subject = judged(perceptron(), x, np.zeros(500, dtype=np.int64))
    subject = judged(perceptron(), x, subject.predict(x))
    _, attacked = run(subject, radii=(0.2, 0.4))
    assert "smaller radius" not in attacked["pgd", 0.2].reason
    assert "smaller radius" in attacked["pgd", 0.4].reason
    _, attacked = run(subject, radii=(0.2, 0.4), tolerance=1.0)
    assert attacked["pgd", 0.4].value == attacked["pgd", 0.2].value < 1.0


def test_curve_falls_and_stays_below_clean(perceptron, inputs, judged):
    x = inputs(600)
    y = np.random.default_rng(4).integers(0, 3, 600)
    _, attacked = run(judged(perceptron(3), x, y, classes=3))
    for attack in ("fgsm", "pgd"):
        curve = [f.value for (name, _), f in attacked.items() if name == attack]
        clean = attacked[attack, 0.1].anchors["clean"]
        assert len(curve) == 6
        assert [clean, *curve] == sorted([clean, *curve], reverse=True)
    for radius in Robustness().radii:
        assert attacked["pgd", radius].value <= attacked["fgsm", radius].value


def test_adversarials_stay_in_the_box_and_move_only_free_features(perceptron, inputs):
    x = torch.tensor(inputs(200))
    free = torch.tensor([True, True, False, True, False, False])
    box = Box.around(x, 0.3, torch.full((6,), -0.9), torch.full((6,), 0.9), free)
    model = perceptron()
    y = (model(x)[:, 0] > 0).long()
    found = pgd(model, x, y, box, steps=5, restarts=3, rng=np.random.default_rng(0))
    assert torch.equal(found[:, ~free], x[:, ~free])
    assert bool(((found - x).abs() <= 0.3 + 1e-6).all())
    inside = (x.abs() <= 0.9).all(dim=1)
    assert bool((found[inside] >= -0.9).all() and (found[inside] <= 0.9).all())
    assert float((found - x).abs().max()) > 0.25


def test_noise_on_a_model_that_ignores_free_features_changes_nothing(linear, inputs, judged):
    x = inputs(500)
    y = (x[:, 5] > 0.5).astype(np.int64)
    subject = judged(linear([0, 0, 0, 0, -5.0, 5.0], 0.0), x, y)
    findings, _ = run(subject)
    noise = [f for f in findings if f.metric == "robustness.noise_accuracy"]
    assert [f.where["scale"] for f in noise] == [0.05, 0.1, 0.25]
    applicable = [f for f in findings if f.status != "not_applicable"]
    assert all(f.value == 1.0 for f in applicable)
    assert {f.metric for f in findings if f not in applicable} == {"robustness.flipped_accuracy"}


def test_noise_accuracy_equals_the_normal_integral(linear, inputs, judged):
    x = inputs(20_000, seed=5)
    x[:, :4] = np.array([0.1, 0.0, 0.0, 0.0])
    subject = judged(linear([1.0, 0, 0, 0, 0, 0], 0.0), x, np.ones(len(x), dtype=np.int64))
    option = Effort(examples=20_000, steps=1, restarts=1)
    findings, _ = run(subject, scales=(0.1,), radii=(), cheap=option)
    assert findings[0].value == pytest.approx(0.8413, abs=0.01)  # P(N(0.1, 0.1) > 0)


def test_without_a_feature_that_may_move_robustness_is_not_applicable(linear, inputs, judged, monkeypatch):
    subject = judged(linear(np.ones(6), 0.0), inputs(50), np.ones(50, dtype=np.int64))
    monkeypatch.setattr(type(subject), "perturbable", lambda self: np.zeros(6, bool))
    findings = Robustness()(subject, rng=np.random.default_rng(0), tier="cheap")
    assert {f.status for f in findings} == {"not_applicable"}


def test_a_model_that_ignores_its_input_is_as_robust_as_it_is_right(inputs, judged):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 1)

    y = np.arange(300) % 3 > 0
    _, attacked = run(judged(Constant(), inputs(300), y.astype(np.int64)))
    assert {round(f.value, 9) for f in attacked.values()} == {round(2 / 3, 9)}


def test_l2_attack_on_a_linear_model_equals_its_exact_robust_accuracy():
    subject = make_subject("multiclass", Middle(), make_task("multiclass", 400))
    weight = Middle.weight.numpy().astype(np.float64)
    x = np.clip(subject.evaluation.x, 0.3, 0.7)  # far from the bounds, so that the ball is whole
    logit = x.reshape(len(x), -1) @ weight[1]
    y = np.where(logit > 0, 1, 0)
    subject = replace(subject, evaluation=Examples(x=x, y=y), shards=None)
    _, attacked = run(subject, radii=(), l2_radii=(0.15, 0.3), attacks=("fgsm", "pgd"))
    for radius in (0.15, 0.3):
        exact = np.mean(np.abs(logit) > radius * np.linalg.norm(weight[1]))
        assert 0.1 < exact < 0.95
        for attack in ("fgsm", "pgd"):
            assert attacked[attack, radius].value == pytest.approx(exact, abs=1 / 200)


class Middle(nn.Module):
    """Class 1 against class 0 by a linear score; class 2 never."""

    weight = torch.stack(
        [torch.zeros(64), torch.randn(64, generator=torch.Generator().manual_seed(0)), torch.zeros(64)]
    )

    def forward(self, x):
        return x.flatten(1) @ self.weight.T - torch.tensor([0.0, 0.0, 1e6])


def test_a_ball_and_a_box_of_some_rows_are_those_rows_of_the_whole(inputs):
    x, rows = torch.tensor(inputs(20)), torch.tensor([3, 7, 19])
    low, high, free = torch.full((6,), -1.0), torch.ones(6), torch.tensor([True] * 4 + [False] * 2)
    generator = torch.Generator().manual_seed(0)
    point, slope = torch.randn(20, 6, generator=generator), torch.randn(20, 6, generator=generator)
    for kind in (Box, Ball):
        whole = kind.around(x, 0.3, low, high, free)
        part = whole.take(rows)
        assert torch.equal(part.project(point[rows]), whole.project(point)[rows])
        assert torch.equal(part.step(slope[rows]), whole.step(slope)[rows])
        assert (part.norm, part.radius) == (whole.norm, whole.radius)


def test_an_example_that_errs_is_not_climbed_further(perceptron, inputs):
    x = torch.tensor(inputs(300))
    model, seen = perceptron(3), []
    wrong = model(x).argmin(dim=1)  # every example errs before any step
    box = Box.around(x, 0.3, torch.full((6,), -1.0), torch.ones(6), torch.ones(6, dtype=torch.bool))

    def forward(points):
        seen.append(len(points))
        return model(points)

    found = pgd(forward, x, wrong, box, steps=5, restarts=3, rng=np.random.default_rng(0))
    assert torch.equal(found, x)
    assert sum(seen) == 300


def test_a_users_attack_that_fails_is_named_and_the_others_are_measured(
    perceptron, inputs, judged, monkeypatch
):
    def broken(*_, **__):
        raise RuntimeError("no way in")

    monkeypatch.setattr("kinds_of_task.broken", broken, raising=False)
    subject = judged(perceptron(), inputs(300), np.arange(300) % 2)
    _, attacked = run(subject, radii=(0.1,), attacks=("fgsm", "pgd", "kinds_of_task:broken"))
    failed = attacked["kinds_of_task:broken", 0.1]
    assert (failed.status, failed.value) == ("failed", None)
    assert "no way in" in failed.reason
    assert attacked["pgd", 0.1].status == "measured"
    with pytest.raises(ConfigError, match="attack 'nothing'"):
        Robustness(attacks=("nothing",))


def test_effort_is_a_table_of_a_configuration(perceptron, inputs, judged):
    subject = judged(perceptron(), inputs(500), np.ones(500, dtype=np.int64))
    _, attacked = run(subject, radii=RADII, cheap={"examples": 64})
    assert {finding.n for finding in attacked.values()} == {64}
    assert Robustness(cheap={"examples": 64})._effort("cheap").steps == robustness.CHEAP.steps
    with pytest.raises(ConfigError, match=r"robustness\.full.*exampels"):
        Robustness(full={"exampels": 64})
