"""A small correct DP-SGD client in plain Flower and torch, with an accountant that survives restarts."""

import functools
import secrets

import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

RATE, STEPS, CLIP, NOISE, DELTA = 0.2, 2, 1.0, 1.0, 1e-5


def load_data(partition_id):
    generator = torch.Generator().manual_seed(partition_id)
    x = torch.randn(100, 16, generator=generator)
    return x, (x[:, 0] > 0).long()


def make_model():
    torch.manual_seed(0)
    return nn.Linear(16, 3)


@functools.cache
def epsilon(rounds):
    event = PoissonSampledDpEvent(RATE, GaussianDpEvent(NOISE))
    return PLDAccountant(value_discretization_interval=1e-3).compose(event, STEPS * rounds).get_epsilon(DELTA)


def clipped_sum(weight, bias, x, y):
    """Sum of the records' gradients of the cross-entropy, each clipped over weight and bias together."""
    residual = torch.softmax(x @ weight.T + bias, 1) - nn.functional.one_hot(y, len(bias))
    extended = torch.cat([x, torch.ones(len(x), 1)], 1)
    norms = residual.double().norm(dim=1) * extended.double().norm(dim=1)
    # Selected, not multiplied: zero times NaN is NaN.
    kept = norms.isfinite()[:, None]
    factors = (CLIP / norms.clamp(min=CLIP)).float()[:, None]
    return torch.where(kept, residual * factors, 0.0).T @ torch.where(kept, extended, 0.0)


app = ClientApp()


@app.train()
def train(message, context):
    x, y = load_data(context.node_config["partition-id"])
    arrays = message.content["arrays"]
    weight, bias = torch.tensor(arrays["weight"].numpy()), torch.tensor(arrays["bias"].numpy())
    generator = torch.Generator().manual_seed(secrets.randbits(63))
    rate = context.run_config["learning-rate"]
    for _ in range(STEPS):
        drawn = torch.rand(len(x), generator=generator) < RATE
        total = clipped_sum(weight, bias, x[drawn], y[drawn])
        step = (total + torch.randn(total.shape, generator=generator) * NOISE * CLIP) / (RATE * len(x))
        weight, bias = weight - rate * step[:, :-1], bias - rate * step[:, -1]
    spent = context.state.get("spent", ConfigRecord({"rounds": 0}))
    spent["rounds"] += 1
    context.state["spent"] = spent
    trained = ArrayRecord({"weight": Array(weight.numpy()), "bias": Array(bias.numpy())})
    metrics = MetricRecord({"num-examples": len(x), "epsilon": epsilon(spent["rounds"])})
    return Message(RecordDict({"arrays": trained, "metrics": metrics}), reply_to=message)
