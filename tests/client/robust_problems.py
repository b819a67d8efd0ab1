"""Objectives that perturb records, and small federations to train with them."""

import functools
import itertools

import numpy as np
import torch
from torch import nn
from training_problems import make_jobs

from fedsafe.client import LocalTraining, build_objective, build_trainer
from fedsafe.data.inputs import ArraySchema


class Branches(nn.Module):
    """A shortcut, two kinds of pooling, a stride and padding: every step that intervals pass, in one small model."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.inner = nn.Linear(4 * 4, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = nn.functional.max_pool2d(x + torch.relu(self.second(x)), 2)
        x = nn.functional.avg_pool2d(x, 2)
        return self.head(torch.tanh(self.inner(x.flatten(1))))


TABLE, IMAGE = (11,), (1, 8, 8)
SPECS = {
    "linf": {"name": "adversarial", "radius": 0.1, "steps": 3},
    "mixed l2": {"name": "adversarial", "radius": 0.5, "steps": 2, "norm": "l2", "weight": 0.5},
    "trades": {"name": "trades", "radius": 0.1, "steps": 2, "beta": 3.0},
    "gaussian": {"name": "gaussian", "sigma": 0.3},
    "ibp": {"name": "ibp", "radius": 0.1, "kappa": 0.25, "warmup": 0.1, "ramp": 0.5},
}
MODELS = {
    "binary": (lambda: nn.Sequential(nn.Linear(11, 13), nn.ReLU(), nn.Linear(13, 1)), TABLE, "binary"),
    "classes": (lambda: nn.Sequential(nn.Linear(11, 10), nn.ReLU(), nn.Linear(10, 5)), TABLE, "multiclass"),
    "images": (Branches, IMAGE, "multiclass"),
}


def make_robust(model, spec, *, sizes=(5, 40, 17, 60, 1, 33), double=False, **training):
    """``build(trainer, training=...)``, the training, each client's rows, and the start."""
    make, shape, kind = MODELS[model]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = make()
        x = torch.rand(sum(sizes), *shape)
        outputs = module(x[:1]).shape[1]
        y = torch.randint(0, max(2, outputs), (sum(sizes),))
    if double:
        module, x = module.double(), x.double()
    objective = build_objective(SPECS[spec], kind, ArraySchema(shape=shape, lowest=0.0, highest=1.0))
    bounds = np.cumsum([0, *sizes])
    parts = [np.arange(low, high) for low, high in itertools.pairwise(bounds)]
    settings = {"learning_rate": 0.5, "steps": 3, "rate": 0.3, "clip": 0.5, "noise": 1.0} | training
    start = nn.utils.parameters_to_vector(module.parameters()).detach().float().numpy().copy()
    build = functools.partial(build_trainer, module=module, objective=objective, x=x, y=y)
    return build, LocalTraining(**settings), parts, start


__all__ = ["IMAGE", "MODELS", "SPECS", "TABLE", "make_jobs", "make_robust"]
