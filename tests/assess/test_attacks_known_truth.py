"""Every attack where the truth is known: linear models, planted adversarials, formulas of the papers."""

import numpy as np
import pytest
import torch
from kinds_of_task import make_subject
from torch import nn

from fedsafe.assess.robustness.apgd import apgd_targeted, checkpoints
from fedsafe.assess.robustness.attacking import CONTROL
from fedsafe.assess.robustness.attacks import ATTACKS, NEAREST, WHOLE, remark
from fedsafe.assess.robustness.planted import plant
from fedsafe.assess.robustness.regions import Ball, Box
from fedsafe.assess.robustness.search import (
    ascend,
    cross_entropy,
    logits_ratio,
    margin,
    targeted_logits_ratio,
)

OWN = tuple(name for name in ATTACKS if name not in WHOLE)
BUDGETS = {"fgsm": (1, 1), "square": (400, 1), "cw-l2": (30, 4)}
every_attack = pytest.mark.parametrize("name", OWN)


def run(name, forward, x, y, region, seed=0):
    steps, restarts = BUDGETS.get(name, (30, 2))
    return ATTACKS[name](
        forward, x, y, region, steps=steps, restarts=restarts, rng=np.random.default_rng(seed)
    )


def around(kind, x, radius, wide=10.0):
    shape = x.shape[1:]
    return kind.around(
        x, radius, torch.full(shape, -wide), torch.full(shape, wide), torch.ones(shape, dtype=torch.bool)
    )


@pytest.fixture
def linear_case():
    """Two classes as two logits: the margin of example i is ``direction @ x_i``, and the truth is known."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 8, generator=generator)
    layer = nn.Linear(8, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 8, generator=generator))
        layer.bias.zero_()
    y = layer(x).argmax(dim=1)
    direction = (layer.weight[1] - layer.weight[0]).detach().double()
    return layer, x, y, direction


@every_attack
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_model_is_broken_exactly_where_its_margin_is_below_the_dual_norm(linear_case, name, norm):
    layer, x, y, direction = linear_case
    if name in NEAREST and norm == "linf":
        with pytest.raises(ValueError, match="Euclidean"):
            run(name, layer, x, y, around(Box, x, 0.2))
        return
    radius = 0.2 if norm == "linf" else 0.5
    kind, dual = (Box, direction.abs().sum()) if norm == "linf" else (Ball, direction.norm())
    found = run(name, layer, x, y, around(kind, x, radius))
    broken = layer(found).argmax(dim=1) != y
    least = radius * dual - (x.double() @ direction).abs()
    certain = least.abs() > 1e-3
    exact = (least > 0)[certain]
    assert 0.1 < exact.double().mean() < 0.9
    if name == "square" and norm == "l2":  # random search alone comes close, and never beats the truth
        assert not (broken[certain] & ~exact).any()
        assert (broken[certain] != exact).double().mean() < 0.1
    else:
        assert torch.equal(broken[certain], exact)


def test_the_nearest_error_of_a_linear_model_is_its_margin_over_the_norm(linear_case):
    layer, x, y, direction = linear_case
    found = run("cw-l2", layer, x, y, around(Ball, x, 100.0))
    distance = (found - x).double().norm(dim=1)
    exact = (x.double() @ direction).abs() / direction.norm()
    assert bool((layer(found).argmax(dim=1) != y).all())
    assert bool((distance >= exact - 1e-4).all())
    assert float((distance / exact.clamp(min=1e-3)).quantile(0.9)) < 1.02


@every_attack
def test_multiplying_the_logits_by_a_large_number_hides_nothing(linear_case, name):
    layer, x, y, _ = linear_case
    plain, scaled = (
        run(name, lambda z, f=factor: f * layer(z), x, y, around(Ball, x, 0.5)) for factor in (1.0, 1e4)
    )
    shares = [(layer(found).argmax(dim=1) != y).double().mean() for found in (plain, scaled)]
    if name == "apgd-ce":  # cross-entropy itself saturates, which is why no attack that ships climbs it alone
        assert shares[1] < shares[0] - 0.02
    else:
        assert shares[1] >= shares[0] - 0.02


@every_attack
def test_nothing_leaves_its_region_and_what_errs_already_is_returned_as_it_is(perceptron, name):
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1)).clamp(-0.95, 0.95)
    model = perceptron(5)
    y = model(x).argmax(dim=1)
    y[:10] = (y[:10] + 1) % 5
    free = torch.tensor([True, True, False, True, True, False])
    for kind in (Ball,) if name in NEAREST else (Box, Ball):
        region = kind.around(x, 0.4, torch.full((6,), -1.0), torch.ones(6), free)
        found = run(name, model, x, y, region)
        if name != "fgsm":  # whose one step costs nothing
            assert torch.equal(found[:10], x[:10])
        assert torch.equal(found[:, ~free], x[:, ~free])
        assert float(found.abs().max()) <= 1.0
        moved = found - x
        size = moved.abs().amax(dim=1) if kind is Box else moved.norm(dim=1)
        assert float(size.max()) <= 0.4 + 1e-5
        assert torch.equal(found, run(name, model, x, y, region))


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_planted_adversarials_are_found_by_every_attack(kind, norm):
    subject = make_subject(kind)
    names = [name for name in OWN if norm == "l2" or name not in NEAREST]
    budgets = {name: BUDGETS.get(name, (20, 3)) for name in names} | {CONTROL: (4, 1)}
    examples, rng = subject.evaluation.take(np.arange(8)), np.random.default_rng(0)
    planted = plant(subject, examples, names, norm, 0.1 if norm == "linf" else 0.3, budgets, rng)
    assert planted.tried >= 6
    for name in names:  # one step is not always enough
        assert planted.found[name] >= (0.75 if name == "fgsm" else 1) * planted.tried, name
    assert planted.found[CONTROL] < planted.tried


def test_planted_adversarials_are_missed_where_gradients_are_gone():
    class Rounded(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(torch.round(x * 8) / 8)

    subject = make_subject("multiclass")
    masked = make_subject("multiclass", Rounded(subject.model))
    budgets = {"fgsm": (1, 1), "pgd": (10, 1), "apgd-ce": (10, 1), CONTROL: (1, 1)}
    names, examples = ["fgsm", "pgd", "apgd-ce"], subject.evaluation.take(np.arange(8))
    planted = plant(masked, examples, names, "linf", 0.2, budgets, np.random.default_rng(0))
    assert planted.tried >= 5
    assert planted.found["fgsm"] <= 1
    assert planted.found["pgd"] <= 1


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100)[:8] == [22, 41, 57, 70, 80, 87, 93, 99]


def test_losses_are_those_of_the_papers():
    logits, y = torch.tensor([[3.0, 1.0, 0.5, -2.0]]), torch.tensor([0])
    assert margin(logits, y).item() == pytest.approx(-2.0)
    assert logits_ratio(logits, y).item() == pytest.approx(-2.0 / 2.5)
    pairs = torch.tensor([[0, 2]])
    assert targeted_logits_ratio(logits, pairs).item() == pytest.approx(-2.5 / (3.0 - (0.5 - 2.0) / 2))
    single = torch.tensor([[0.7]])
    assert cross_entropy(single, torch.tensor([1])).item() == pytest.approx(np.log1p(np.exp(-0.7)))
    assert margin(single, torch.tensor([0])).item() == pytest.approx(0.7)


def test_a_gradient_that_is_not_finite_leads_nowhere():
    x = torch.zeros(3, 2)
    found = ascend(lambda z: z.sqrt(), x, torch.zeros(3, dtype=torch.long), cross_entropy)
    assert torch.equal(found.gradient, torch.zeros(3, 2))


def test_the_targeted_attack_reaches_a_class_that_is_not_the_second_best():
    """Towards the runner-up the margin stops short of an error; towards the third class it does not."""

    class Trap(nn.Module):
        def forward(self, x):
            first = torch.ones_like(x[:, 0])
            runner = 0.9 - 0.5 * torch.relu(x[:, 0]) ** 2 + 0.05 * torch.tanh(5 * x[:, 0])
            third = 3.0 * x[:, 1] - 1.5
            return torch.stack([first, runner, third, first - 9], dim=1)

    x, y = torch.zeros(20, 2), torch.zeros(20, dtype=torch.long)
    region = around(Box, x, 1.0)
    found = apgd_targeted(Trap(), x, y, region, steps=20, restarts=1, rng=np.random.default_rng(0))
    assert bool((Trap()(found).argmax(dim=1) == 2).all())


def test_what_falls_back_says_so():
    assert remark("apgd-t", 2).startswith("the margin is climbed")
    assert remark("apgd-dlr", 3) is remark("pgd", 1) is None
    for name in ("fgsm", "pgd", "pgd-momentum"):
        assert "where the paper has cross-entropy" in remark(name, 3)


def test_square_asks_for_no_gradient(perceptron, inputs):
    x, model = torch.tensor(inputs(50)), perceptron()
    y = (model(x)[:, 0] > 0).long()

    def forward(points):
        assert not torch.is_grad_enabled()
        return model(points)

    for kind in (Box, Ball):
        found = run("square", forward, x, y, around(kind, x, 0.5))
        assert float(((model(found)[:, 0] > 0).long() != y).double().mean()) > 0.1


@pytest.mark.parametrize("kind", [Box, Ball])
def test_square_breaks_images_that_a_gradient_breaks(kind):
    subject = make_subject("multiclass")
    x, y = (
        subject.tensor(subject.evaluation.x[:60]),
        subject.tensor(subject.predict(subject.evaluation.x[:60])),
    )
    region = kind.around(
        x,
        0.15 if kind is Box else 0.7,
        *map(subject.tensor, (*subject.input_bounds(), subject.perturbable())),
    )
    shares = {
        name: float(
            (subject.model(run(name, subject.model, x, y, region)).argmax(dim=1) != y).double().mean()
        )
        for name in ("pgd", "square")
    }
    assert shares["pgd"] > 0.2
    assert 0.5 * shares["pgd"] < shares["square"] <= shares["pgd"] + 0.05
