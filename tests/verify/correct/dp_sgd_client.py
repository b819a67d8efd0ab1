"""A small correct DP-SGD client in plain Flower and torch, with an accountant that survives restarts."""

import functools
import math
import secrets

import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.func import functional_call, grad, vmap

RATE, STEPS, CLIP, NOISE, DELTA = 0.2, 2, 1.0, 1.0, 1e-5


def load_data(partition_id):
    generator = torch.Generator().manual_seed(partition_id)
    x = torch.randn(100, 12, generator=generator)
    return x, (x[:, 0] > 0).long()


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


@functools.cache
def epsilon(rounds):
    event = PoissonSampledDpEvent(RATE, GaussianDpEvent(NOISE))
    return PLDAccountant(value_discretization_interval=1e-3).compose(event, STEPS * rounds).get_epsilon(DELTA)


app = ClientApp()


@app.train()
def train(message, context):
    x, y = load_data(context.node_config["partition-id"])
    model = make_model()
    model.load_state_dict({name: torch.tensor(a.numpy()) for name, a in message.content["arrays"].items()})
    generator = torch.Generator().manual_seed(secrets.randbits(63))
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}

    def loss(values, one_x, one_y):
        return nn.functional.cross_entropy(functional_call(model, values, (one_x[None],)), one_y[None])

    for _ in range(STEPS):
        drawn = torch.rand(len(x), generator=generator) < RATE
        total = {name: torch.zeros_like(value) for name, value in parameters.items()}
        if drawn.any():
            each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x[drawn], y[drawn])
            norms = torch.sqrt(sum(value.flatten(1).double().square().sum(1) for value in each.values()))
            factors = torch.where(norms.isfinite(), CLIP / norms.clamp(min=CLIP), 0.0).float()
            for name, value in each.items():
                kept = torch.where(value.isfinite(), value, 0.0)
                total[name] = torch.einsum("n,n...->...", factors, kept)
        for name, value in parameters.items():
            noise = torch.randn(value.shape, generator=generator) * NOISE * CLIP
            step = (total[name] + noise) / (RATE * len(x))
            parameters[name] = value - context.run_config["learning-rate"] * step
    spent = context.state.get("spent", ConfigRecord({"rounds": 0}))
    spent["rounds"] += 1
    context.state["spent"] = spent
    arrays = ArrayRecord({name: Array(value.numpy()) for name, value in parameters.items()})
    metrics = MetricRecord({"num-examples": len(x), "epsilon": epsilon(spent["rounds"])})
    if not all(math.isfinite(value) for value in metrics.values()):
        raise ValueError("the accountant failed")
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
