"""What a stack does besides training: losses, gradients by the inputs, trees of tensors, and half precision."""

import copy

import numpy as np
import pytest
import torch
from stacked_models import CASES
from torch import nn
from training_problems import make_jobs, make_problem

from fedsafe.client import build_objective
from fedsafe.client.objectives import cross_entropy
from fedsafe.client.stacked import StackedModel, StackedTrainer, clipped_sum, layout_of, measure
from fedsafe.client.trainer import LocalTraining

SOME = [
    "mlp",
    "residual images",
    "self attention",
    "gru",
    "tied tables",
    "vision transformer",
    "partly frozen",
]


def stacked(name, dtype=torch.float64):
    torch.manual_seed(4)
    case = CASES[name]
    module, batch = case.make().to(dtype), case.data(9, dtype, 1.0)
    parameters = 0.4 * torch.randn(3, layout_of(module).total, dtype=dtype)
    objective = build_objective(None, case.signature.kind)
    return module, parameters, objective, batch


def alone(module, parameters, client):
    model = copy.deepcopy(module)
    nn.utils.vector_to_parameters(parameters[client], [p for p in model.parameters() if p.requires_grad])
    return model.train()


@pytest.mark.parametrize("name", SOME)
def test_losses_and_gradients_by_the_inputs_are_those_of_each_clients_own_model(name):
    module, parameters, objective, (x, y) = stacked(name)
    stack = measure(module, objective, (x, y)).stack(module, parameters)
    losses, gradients = stack.losses(objective, (x, y)), stack.input_gradients(objective, (x, y))
    assert len(gradients) == x.is_floating_point()
    assert not stack.taps
    for client in range(3):
        rows = slice(3 * client, 3 * client + 3)
        own = x[rows].clone().requires_grad_(x.is_floating_point())
        loss = objective(alone(module, parameters, client), (own, y[rows]))
        torch.testing.assert_close(losses[rows], loss.detach(), rtol=1e-10, atol=1e-12)
        if gradients:
            (expected,) = torch.autograd.grad(loss.sum(), own)
            torch.testing.assert_close(gradients[0][rows], expected, rtol=1e-9, atol=1e-12)
    # And training goes on as if nothing had been asked.
    mask = torch.ones(3, 3, dtype=torch.bool)
    fresh = measure(module, objective, (x, y)).stack(module, parameters)
    assert torch.equal(
        clipped_sum(stack, objective, (x, y), mask, 1.0)[0],
        clipped_sum(fresh, objective, (x, y), mask, 1.0)[0],
    )


class Rewards(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x):
        return self.body(x)[:, 0]


def preference(model, batch):
    """Bradley-Terry: the model scores both sides, and an example's weight counts its loss."""
    pair, weight = batch["pair"], batch["weight"]
    margin = model(pair[0]) - model(pair[1])
    return -nn.functional.logsigmoid(margin) * weight


def test_a_batch_is_a_tree_and_a_model_may_be_called_twice():
    torch.manual_seed(5)
    module = Rewards().double()
    batch = {
        "pair": (torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 4, dtype=torch.float64)),
        "weight": torch.rand(8, dtype=torch.float64),
    }
    parameters = torch.randn(2, layout_of(module).total, dtype=torch.float64)
    stack = measure(module, preference, batch).stack(module, parameters)
    sums, norms = clipped_sum(stack, preference, batch, torch.ones(2, 4, dtype=torch.bool), 1e9)
    for client in range(2):
        model = alone(module, parameters, client)
        expected = torch.zeros_like(parameters[0])
        for row in range(4 * client, 4 * client + 4):
            one = {
                "pair": tuple(side[row : row + 1] for side in batch["pair"]),
                "weight": batch["weight"][row : row + 1],
            }
            loss = preference(model, one).sum()
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
            torch.testing.assert_close(norms[client, row % 4], gradient.norm(), rtol=1e-10, atol=0.0)
            expected += gradient
        torch.testing.assert_close(sums[client], expected, rtol=1e-9, atol=1e-12)


def test_a_trainer_takes_a_tree_of_records():
    torch.manual_seed(6)
    batch = {"pair": (torch.randn(60, 4), torch.randn(60, 4)), "weight": torch.rand(60)}
    training = LocalTraining(learning_rate=0.5, steps=3, rate=0.3, clip=0.5, noise=0.7)
    module = Rewards()
    start = nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    parts = [np.arange(0, 40), np.arange(40, 60)]
    trainer = StackedTrainer(module, preference, batch, training)
    together = trainer.train(start, make_jobs(parts, [0, 1]))
    apart = [trainer.train(start, make_jobs(parts, [client]))[0] for client in (0, 1)]
    np.testing.assert_array_equal(together, apart)


@pytest.mark.parametrize(
    ("batch", "message"),
    [((torch.zeros(3, 2), torch.zeros(4)), "4] rows"), ((torch.zeros(3, 2), 1.0), "tensor"), ((), "tensor")],
)
def test_what_is_no_batch_is_refused(batch, message):
    stack = StackedModel(nn.Linear(2, 1), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=message):
        stack.losses(preference, batch)


@pytest.mark.parametrize(
    "name", ["mlp", "shipped cnn", "residual images", "gru", "own transformer", "tied tables"]
)
def test_half_precision_clips_what_it_sums_and_stays_near(name):
    """bfloat16 has 8 bits: what is measured and what is summed are the same values, in single precision."""
    module, parameters, objective, batch = stacked(name, torch.float32)
    shape = measure(module, objective, batch)
    half = shape.stack(module, parameters, precision=torch.bfloat16)
    mask = torch.ones(3, 3, dtype=torch.bool)
    clip = 0.01
    exact, _ = clipped_sum(shape.stack(module, parameters), objective, batch, mask, 1e9)
    near, norms = clipped_sum(half, objective, batch, mask, 1e9)
    assert near.dtype == torch.float32
    assert norms.dtype == torch.float64
    assert float((near - exact).norm() / exact.norm()) < 0.1
    assert float((near - exact).norm()) > 0.0
    for example in range(3):
        only = torch.zeros_like(mask)
        only[:, example] = True
        sums, norms = clipped_sum(half, objective, batch, only, clip)
        lengths = torch.linalg.vector_norm(sums.double(), dim=1)
        assert (lengths <= clip).all()
        assert (lengths[norms[:, example] > clip] > 0.99 * clip).all()


def test_half_precision_trains_and_no_packing_changes_a_bit():
    build, training, parts, start = make_problem("mlp", noise=0.5)
    full = build("stacked", training=training).train(start, make_jobs(parts, range(8)))
    trainer = build("stacked", training=training, precision=torch.bfloat16)
    half = trainer.train(start, make_jobs(parts, range(8)))
    assert 0.0 < float(np.abs(half - full).max()) < 0.3
    for client in range(8):
        np.testing.assert_array_equal(trainer.train(start, make_jobs(parts, [client]))[0], half[client])


@pytest.mark.parametrize("stack", [1, 2, 5, 1000])
def test_how_many_clients_share_a_stack_changes_no_bit(stack):
    build, training, parts, start = make_problem("relu")
    free = build("stacked", training=training).train(start, make_jobs(parts, range(8)))
    bound = build("stacked", training=training, stack=stack).train(start, make_jobs(parts, range(8)))
    np.testing.assert_array_equal(bound, free)


def test_no_packing_changes_a_bit_in_half_precision():
    """Products in bfloat16 give other bits to one client in hundreds when others are beside it."""
    torch.manual_seed(8)
    module = nn.Sequential(nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.randn(3000, 9), torch.randint(0, 3, (3000,))
    parts = list(np.arange(3000).reshape(200, 15))
    way = LocalTraining(learning_rate=1.0, steps=4, rate=0.5, clip=1.0, noise=1.0)
    start = nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    trainer = StackedTrainer(module, cross_entropy, (x, y), way, precision=torch.bfloat16)
    together = trainer.train(start, make_jobs(parts, range(200)))
    few = np.concatenate([trainer.train(start, make_jobs(parts, range(k, k + 2))) for k in range(0, 200, 2)])
    np.testing.assert_array_equal(together, few)
