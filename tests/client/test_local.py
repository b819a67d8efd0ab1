"""Parameters that stay with their clients are trained there, kept from round to round, and never leave."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from training_problems import make_jobs

from fedsafe.client import LocalParameters, LocalTraining
from fedsafe.client.objectives import cross_entropy
from fedsafe.client.stacked import StackedTrainer, layout_of
from fedsafe.errors import ModelError


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def test_a_personal_head_is_trained_and_kept_and_nobody_else_sees_it():
    """Three rounds equal those of clients that are trained one by one with ordinary autograd."""
    torch.manual_seed(1)
    x, y = torch.randn(30, 6), torch.randint(0, 3, (30,))
    parts = [np.arange(0, 10), np.arange(10, 18), np.arange(18, 30)]
    module = model()
    local = LocalParameters(layout_of(module), ("2",))
    training = LocalTraining(learning_rate=0.3, steps=2, rate=1.0, clip=np.inf, noise=0.0)
    trainer = StackedTrainer(module, cross_entropy, (x, y), training)
    shared = nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    own = [None] * 3
    clients = [copy.deepcopy(module) for _ in parts]
    for round in (1, 2, 3):
        starts = [local.start(shared, values) for values in own]
        trained = trainer.train(shared, make_jobs(parts, range(3), round=round, starts=starts))
        updates, own = local.released(np.stack(starts), trained), local.kept(trained)
        shared = (shared + updates.mean(0)).astype(np.float32)
        assert (updates[:, local.mask] == 0.0).all()
        assert (updates[:, ~local.mask] != 0.0).any()
        before = [[p.detach().clone() for p in client[0].parameters()] for client in clients]
        for client, rows in zip(clients, parts, strict=True):
            for _ in range(2):
                client.zero_grad()
                cross_entropy(client, (x[rows], y[rows])).mean().backward()
                for p in client.parameters():
                    p.data -= 0.3 * p.grad
        mean = [
            sum(c[0].weight.data - b[0] for c, b in zip(clients, before, strict=True)) / 3 + before[0][0],
            sum(c[0].bias.data - b[1] for c, b in zip(clients, before, strict=True)) / 3 + before[0][1],
        ]
        for client, values in zip(clients, own, strict=True):
            client[0].weight.data, client[0].bias.data = mean[0].clone(), mean[1].clone()
            head = nn.utils.parameters_to_vector(client[2].parameters()).detach().numpy()
            np.testing.assert_allclose(values, head, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(shared[:30].reshape(5, 6), mean[0].numpy(), rtol=1e-4, atol=1e-6)
    assert not np.allclose(own[0], own[1])


def test_names_that_are_none_and_names_of_everything_are_refused():
    layout = layout_of(model())
    with pytest.raises(ModelError, match=r"'head': there are 0.weight, 0.bias, 2.weight"):
        LocalParameters(layout, ("head",))
    with pytest.raises(ModelError, match="share nothing"):
        LocalParameters(layout, ("0", "2"))
    assert LocalParameters(layout, ("2.bias",)).mask.sum() == 3
