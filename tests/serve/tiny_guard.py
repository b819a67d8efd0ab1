"""A guarded model so small that a test makes its own in a moment, and rows that it takes."""

import asyncio
import json
from functools import cache

import httpx
import numpy as np
import torch
from tiny_federation import task
from torch import nn

from fedsafe.serve import Guard, Monitor, Policy, Release

EVERYTHING_ANSWERED = Policy(strange="note", flips="note", queries="note")


@cache
def _fitted():
    whole = task(evaluation=700)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Linear(5, 1).eval()
    with torch.no_grad():
        model.weight[:] = torch.tensor([[6.0, 3.0, 0.0, 0.0, 0.0]])
        model.bias[:] = 0.0
    return model, Monitor.fit(model, whole, whole.evaluation, seed=3), whole


def guard(policy=EVERYTHING_ANSWERED, **options):
    model, monitor, whole = _fitted()
    release = Release(name="tiny", round=3, digest="ab" * 32)
    return Guard(model, monitor, whole, policy=policy, release=release, **options)


def rows(count=1, seed=0):
    """Raw rows whose label the model knows: the sign of 2 a0 + a1."""
    rng = np.random.default_rng(seed)
    return [
        {**{f"a{i}": round(float(v), 3) for i, v in enumerate(rng.uniform(-5, 5, 3))}, "sex": "Male"}
        for _ in range(count)
    ]


def ask(service, *requests, together=False):
    """The answers to requests ``(method, path, options)``, one after the other or all at once, in this process."""

    async def run():
        transport = httpx.ASGITransport(app=service, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            if together:
                return await asyncio.gather(*(client.request(m, p, **o) for m, p, o in requests))
            return [await client.request(m, p, **o) for m, p, o in requests]

    return asyncio.run(run())


def predict(instances, path="/v1/predict", **options):
    content = json.dumps({"instances": instances}).encode()
    headers = {"content-type": "application/json", **options.pop("headers", {})}
    return "POST", path, {"content": content, "headers": headers, **options}


def raw(content, path="/v1/predict", **headers):
    given = {"content-type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
    return "POST", path, {"content": content, "headers": given}
