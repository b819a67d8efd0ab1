"""Federations of a few clients to train on, for every trainer."""

import functools
import itertools

import numpy as np
import torch
from stacked_models import CASES, NOT_FOR_OPACUS, Case
from torch import nn

from fedsafe.client import ClientJob, LocalTraining, build_objective, build_trainer
from fedsafe.data import Signature
from fedsafe.rng import Stream, StreamId

TRAINERS = ["stacked", "vmap", "opacus"]
KEY = bytes(range(32))


def _table(outputs, *layers):
    signature = Signature(
        kind="binary" if outputs == 1 else "multiclass",
        inputs=(11,),
        outputs=(outputs,),
        classes=max(2, outputs),
    )
    return Case(lambda: nn.Sequential(*[make() for make in layers]), signature)


def linear(inputs, outputs):
    return lambda: nn.Linear(inputs, outputs)


# Widths that leave remainders in every kernel.
MODELS = {
    "logistic": _table(1, linear(11, 1)),
    "softmax": _table(3, linear(11, 3)),
    "relu": _table(1, linear(11, 13), nn.ReLU, linear(13, 1)),
    "tanh": _table(4, linear(11, 10), nn.Tanh, linear(10, 5), nn.Sigmoid, linear(5, 4)),
    "gelu": _table(1, linear(11, 17), nn.GELU, linear(17, 1)),
}
EVERY_RULE = MODELS | CASES
FOR_OPACUS = [name for name in EVERY_RULE if name not in NOT_FOR_OPACUS]


def make_jobs(parts, clients, *, key=KEY, round=1, corrections=None, trainings=None, starts=None):
    def stream(purpose, client):
        return Stream(key, StreamId(purpose=purpose, client=client, round=round, digest=b"d" * 32))

    return [
        ClientJob(
            client=client,
            records=parts[client],
            batches=stream("batches", client),
            noise=stream("record noise", client),
            round=round,
            correction=None if corrections is None else corrections[client],
            training=None if trainings is None else trainings[client],
            start=None if starts is None else starts[client],
        )
        for client in clients
    ]


def make_problem(name, *, sizes=(5, 40, 90, 17, 300, 60, 1, 33), seed=0, **training):
    case = EVERY_RULE[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = case.make()
        x, y = case.data(sum(sizes))
    bounds = np.cumsum([0, *sizes])
    parts = [np.arange(low, high) for low, high in itertools.pairwise(bounds)]
    settings = {"learning_rate": 0.5, "steps": 4, "rate": 0.2, "clip": 1.0, "noise": 1.0} | training
    trained = [p for p in module.parameters() if p.requires_grad]
    start = nn.utils.parameters_to_vector(trained).detach().numpy().copy()
    objective = build_objective(None, case.signature.kind)
    build = functools.partial(build_trainer, module=module, objective=objective, x=x, y=y)
    return build, LocalTraining(**settings), parts, start


def compare_packings(made, parts, start, trials, rng, *, alone=True):
    """Random orders and chunk sizes, one client at a time included, give each client the same bits, which are returned.

    ``alone=False`` leaves the trial of one client at a time out.
    """
    corrections = list(rng.normal(scale=0.1, size=(len(parts), len(start))).astype(np.float32))
    corrections[::3] = [None] * len(corrections[::3])
    whole = made.train(start, make_jobs(parts, range(len(parts)), corrections=corrections))
    for trial in range(trials):
        order = rng.permutation(len(parts))
        found = np.empty_like(whole)
        position = 0
        while position < len(order):
            count = 1 if alone and trial == 0 else int(rng.integers(1, 9))
            chosen = order[position : position + count]
            found[chosen] = made.train(start, make_jobs(parts, chosen, corrections=corrections))
            position += count
        np.testing.assert_array_equal(found.view(np.int32), whole.view(np.int32))
    return whole
