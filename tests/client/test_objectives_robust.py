"""What robust objectives do to records and to losses, against formulas, exact answers and searches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from robust_problems import Branches
from scipy import stats
from torch import nn

from fedsafe.client import build_objective
from fedsafe.client.objectives import (
    Moment,
    Perturbing,
    PlainModel,
    bound_to,
    cross_entropy,
    draw,
    perturbations,
)
from fedsafe.client.objectives.adversarial import divergence
from fedsafe.client.objectives.intervals import steps_of, worst_logits
from fedsafe.data.inputs import ArraySchema, TokenSchema
from fedsafe.errors import ConfigError, ModelError
from fedsafe.models.bounds import InputRegion, interval_margins, trace
from fedsafe.rng import Stream, StreamId

UNIT = ArraySchema(shape=(6,), lowest=0.0, highest=1.0)


class PartlyFixed(ArraySchema):
    """Features of which two may not move."""

    @property
    def perturbable(self):
        return np.array([True, True, False, True, True, False])


FIXED = PartlyFixed(shape=(6,), lowest=0.0, highest=1.0)


def moment(objective, batch, seed=0, progress=0.99):
    stream = Stream(bytes(32), StreamId(purpose="batches", client=seed, round=1, digest=b""))
    draws = torch.from_numpy(draw(stream, objective.law, len(batch[0]), objective.width(batch)))
    return Moment(draws=draws, progress=torch.full((len(batch[0]),), progress))


def linear(outputs, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(6, outputs)


def records(n=64, classes=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 6, generator=generator), torch.arange(n) % classes


def robust(spec, kind="binary", schema=UNIT):
    return build_objective(spec, kind, schema)


def test_on_a_linear_model_the_ascent_ends_at_the_exact_worst_input():
    """There the worst input is a corner of the box: bounds, radius and what may not move, all at once."""
    model, (x, y) = linear(1), records()
    objective = robust({"name": "adversarial", "radius": 0.2, "steps": 10}, schema=FIXED)
    worst, _ = objective.perturbed((x, y), moment(objective, (x, y)), PlainModel(model))
    away = -model.weight[0].sign() * (2.0 * y - 1.0)[:, None]
    corner = torch.where(torch.from_numpy(FIXED.perturbable), (x + 0.2 * away).clamp(0.0, 1.0), x)
    torch.testing.assert_close(worst, corner)
    # One step of half a radius does not get there from everywhere.
    short = robust({"name": "adversarial", "radius": 0.2, "steps": 1, "step_size": 0.1}, schema=FIXED)
    nearer, _ = short.perturbed((x, y), moment(short, (x, y)), PlainModel(model))
    assert (objective(model, (nearer, y)) < objective(model, (worst, y)) - 1e-6).any()


def test_in_the_euclidean_norm_it_ends_where_the_gradient_leaves_the_ball():
    model, x, y = linear(1), 0.4 + 0.2 * records()[0], records()[1]
    objective = robust({"name": "adversarial", "radius": 0.3, "norm": "l2", "steps": 30, "step_size": 0.3})
    worst, _ = objective.perturbed((x, y), moment(objective, (x, y)), PlainModel(model))
    assert float((worst - x).norm(dim=1).max()) <= 0.3 + 1e-6
    along = -model.weight[0] / model.weight[0].norm() * (2.0 * y - 1.0)[:, None]
    torch.testing.assert_close(worst, x + 0.3 * along, atol=1e-3, rtol=0.0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_are_uniform_in_the_ball(norm):
    """The right law passes; a ball of two thirds of the radius fails."""
    x = torch.full((4000, 6), 0.5)
    objective = robust({"name": "adversarial", "radius": 0.2, "norm": norm})
    start = objective.ascent.start(x, moment(objective, (x, torch.zeros(4000))).draws) - x
    if norm == "linf":
        sizes = start.flatten() / 0.4 + 0.5
        narrow = sizes / 1.5 + 1 / 6
    else:
        sizes = (start.norm(dim=1) / 0.2) ** 6
        narrow = sizes / 1.5**6
    assert stats.kstest(sizes.numpy(), "uniform").pvalue > 1e-4
    assert stats.kstest(narrow.numpy(), "uniform").pvalue < 1e-6
    assert float(start.mean().abs()) < 0.01


@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_draws_have_their_law_and_do_not_hang_on_how_records_are_cut(law):
    def stream():
        return perturbations(Stream(bytes(32), StreamId(purpose="batches", client=0, round=1, digest=b"")))

    whole, cut = draw(stream(), law, 3000, 7), stream()
    parts = [draw(cut, law, count, 7) for count in (1, 1999, 1000)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    right = "uniform" if law == "uniform" else "norm"
    assert stats.kstest(whole.ravel(), right).pvalue > 1e-4
    assert stats.kstest(whole.ravel() * 1.1, right).pvalue < 1e-6
    assert np.abs(np.corrcoef(whole.T) - np.eye(7)).max() < 0.1


def test_a_branch_shares_no_draw_with_its_stream_wherever_that_is():
    one, other = (Stream(bytes(32), StreamId(purpose="batches", client=0, round=1, digest=b"")) for _ in "ab")
    other.words(17)
    branch = one.branch("x").words(64)
    np.testing.assert_array_equal(branch, other.branch("x").words(64))
    assert not set(branch.tolist()) & set(one.words(256).tolist())
    assert (one.branch("y").words(64) != branch).all()


def test_the_divergence_is_the_one_of_the_classes():
    logits, others = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, q = logits.softmax(1), others.softmax(1)
    torch.testing.assert_close(divergence(logits, others), (p * (p / q).log()).sum(1))
    pair = torch.stack([torch.zeros(50, dtype=torch.float64), logits[:, 0]], 1)
    other = torch.stack([torch.zeros(50, dtype=torch.float64), others[:, 0]], 1)
    torch.testing.assert_close(divergence(logits[:, :1], others[:, :1]), divergence(pair, other))


def test_trades_is_the_own_loss_and_beta_times_the_largest_change():
    model, (x, y) = linear(3), records(classes=3)
    objective = robust({"name": "trades", "radius": 0.1, "steps": 10, "beta": 2.0}, "multiclass")
    batch = objective.perturbed((x, y), moment(objective, (x, y)), PlainModel(model))
    moved = batch[2]
    assert float((moved - x).abs().max()) <= 0.1 + 1e-6
    expected = cross_entropy(model, (x, y)) + 2.0 * divergence(model(x), model(moved))
    torch.testing.assert_close(objective(model, batch), expected)
    # Nearly always more than at a corner by chance: where the divergence is flat next to the record, a few ascents end
    # at a lesser top.
    by_chance = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    found, chance = (divergence(model(x), model(inputs)) for inputs in (moved, by_chance.clamp(0, 1)))
    assert float((found >= chance - 1e-6).float().mean()) > 0.8
    assert float((found.mean() - 2.0 * chance.mean()).detach()) > 0.0


def test_a_mixed_loss_weighs_both():
    model, (x, y) = linear(1), records()
    objective = robust({"name": "adversarial", "weight": 0.25})
    batch = objective.perturbed((x, y), moment(objective, (x, y)), PlainModel(model))
    both = [objective.natural(model, (inputs, y)) for inputs in (x, batch[2])]
    torch.testing.assert_close(objective(model, batch), 0.75 * both[0] + 0.25 * both[1])


def test_gaussian_noise_has_its_deviation_and_leaves_what_may_not_move():
    x, y = torch.zeros(4000, 6), torch.zeros(4000)
    objective = robust({"name": "gaussian", "sigma": 0.3}, schema=FIXED)
    noisy, _ = objective.perturbed((x, y), moment(objective, (x, y)), PlainModel(linear(1)))
    free = FIXED.perturbable
    assert not noisy[:, ~free].any()
    assert stats.kstest(noisy[:, free].numpy().ravel() / 0.3, "norm").pvalue > 1e-4
    assert stats.kstest(noisy[:, free].numpy().ravel() / 0.2, "norm").pvalue < 1e-6


def test_regression_climbs_the_squared_error():
    model, (x, _) = linear(1), records()
    y = torch.linspace(-1.0, 1.0, len(x))
    objective = robust({"name": "adversarial", "radius": 0.1, "steps": 10}, "regression")
    worst, _ = objective.perturbed((x, y), moment(objective, (x, y)), PlainModel(model))
    assert (objective(model, (worst, y)) >= objective(model, (x, y)) - 1e-6).all()


def test_worst_logits_are_those_of_the_bounds_of_finished_models():
    """With the last layer elided and before it by intervals, as the certifier has it."""
    torch.manual_seed(0)
    cases = [
        (nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)), torch.rand(20, 6)),
        (nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 1)), torch.rand(20, 6)),
        (Branches(), torch.rand(20, 1, 8, 8)),
    ]
    for model, x in cases:
        model, x = model.double(), x.double()
        shape = tuple(x.shape[1:])
        y = torch.arange(20) % max(2, model(x).shape[1])
        region = InputRegion.around(x, 0.07, low=0.0, high=1.0)
        found = worst_logits(model, steps_of(model, shape), (region.low, region.high), y)
        margins = -found[:, 0] if found.shape[1] == 1 else -(
            found.masked_fill(F.one_hot(y, found.shape[1]) > 0, -torch.inf).amax(1)
        )  # fmt: skip
        torch.testing.assert_close(margins, interval_margins(trace(model, shape), region, y))
        # And no input of the box is worse.
        inside = region.low + (region.high - region.low) * torch.rand(20, *shape, dtype=torch.float64)
        logits = model(inside)
        relative = (
            (1 - 2 * y)[:, None] * logits if logits.shape[1] == 1 else logits - logits.gather(1, y[:, None])
        )
        assert (relative <= found + 1e-9).all()


def test_radius_and_kappa_follow_their_schedule():
    x, y = records(5)
    objective = bound_to(
        robust({"name": "ibp", "radius": 0.4, "kappa": 0.5, "warmup": 0.2, "ramp": 0.4}), linear(1)
    )
    progress = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.9])
    batch = objective.perturbed(
        (x, y), Moment(draws=torch.zeros(5, 0), progress=progress), PlainModel(linear(1))
    )
    torch.testing.assert_close(batch[2], torch.tensor([0.0, 0.0, 0.2, 0.4, 0.4]))
    torch.testing.assert_close(batch[3], torch.tensor([1.0, 1.0, 0.75, 0.5, 0.5]))
    torch.testing.assert_close(objective(linear(1), batch)[:2], cross_entropy(linear(1), (x, y))[:2])


def test_records_as_they_are_have_the_natural_loss():
    """Which is what rounds and evaluations report."""
    model, (x, y) = linear(1), records()
    for spec in ("adversarial", "trades", "gaussian", "ibp"):
        objective = robust(spec)
        assert isinstance(objective, Perturbing)
        torch.testing.assert_close(objective(model, (x, y)), cross_entropy(model, (x, y)))


def test_models_without_bounds_are_refused_for_intervals():
    with pytest.raises(ModelError, match=r'"ibp" cannot train this model.*GroupNorm'):
        bound_to(robust("ibp"), nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8), nn.Linear(8, 1)))

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(6, 1)
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.inner(x) * self.scale

    with pytest.raises(ModelError, match="weights that belong to no"):
        bound_to(robust("ibp"), Reads())


@pytest.mark.parametrize(
    ("spec", "kind", "schema", "says"),
    [
        ("adversarial", "next_token", TokenSchema(tokens=("a", "b"), length=3), "inputs are tokens"),
        ("trades", "regression", UNIT, "compares predicted classes"),
        ("ibp", "regression", UNIT, "compares predicted classes"),
        ("gaussian", "binary", None, "public bounds"),
        ({"name": "gaussian", "radius": 0.1}, "binary", UNIT, "radius is no setting of 'gaussian'"),
        ({"name": "cross_entropy", "radius": 0.1}, "binary", UNIT, "has no settings"),
        ("adversrial", "binary", UNIT, "adversarial"),
    ],
)
def test_what_cannot_be_is_one_clear_line(spec, kind, schema, says):
    with pytest.raises(ConfigError, match=says) as caught:
        build_objective(spec, kind, schema)
    assert "\n" not in str(caught.value)
