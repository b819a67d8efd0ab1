"""A federation so small that a whole run takes a fraction of a second, made by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from torch import nn

from fedsafe.data import Categorical, Examples, Label, Numeric, Schema, Source, Task
from fedsafe.federation import NoisyAverage, RoundOutcome, SecureRounds, make_server_app, server_context
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.levels import ClientPlan, RecordPlan
from fedsafe.privacy.mechanisms import grid_bits
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.compose import (
    Parts,
    aggregator_of,
    client_apps,
    compose,
    program_digest,
    server_optimizer_of,
)
from fedsafe.runs.config import make_config

CLIENTS = 12
# Little epsilon is much noise, whose loss distribution is narrow and quick to compose.
CONFIG: dict[str, Any] = {
    "task": "tiny_federation:task",
    "rounds": 3,
    "federation": {"clients": CLIENTS, "cohort": {"rate": 0.5}},
    "client": {"steps": 2, "rate": 0.25},
    "server": {"optimizer": {"momentum": 0.5}},
    "privacy": {"record": {"epsilon": 0.1}, "client": {"epsilon": 0.1}},
    "assess": {"every": 2, "assessors": ["performance"]},
    "engine": {"name": "inline"},
}


def config(**changes: Any) -> dict[str, Any]:
    """The tiny configuration with some values changed, each named with ``__`` for the dots."""
    values = _copied(CONFIG)
    for name, value in changes.items():
        *path, last = name.split("__")
        section = values
        for key in path:
            section = section.setdefault(key, {})
        section[last] = value
    return values


def task(records: int = 240, evaluation: int = 60) -> Task:
    """Two classes that a line separates, up to one label in ten."""
    rng = np.random.default_rng(7)

    def draw(count: int) -> Examples:
        sex = rng.integers(0, 2, count)
        x = np.concatenate([rng.uniform(-1, 1, (count, 3)), np.eye(2)[sex]], axis=1).astype(np.float32)
        y = (x[:, 0] + 0.5 * x[:, 1] > 0) ^ (rng.random(count) < 0.1)
        return Examples(x=x, y=y.astype(np.int64), groups={"sex": np.array(["Female", "Male"])[sex]})

    return Task(
        name="tiny",
        kind="binary",
        classes=("no", "yes"),
        schema=Schema(
            label=Label(column="y", classes=("no", "yes")),
            columns=(
                *(Numeric(name=f"a{i}", low=-5, high=5, encoded=(-1.0, 1.0)) for i in range(3)),
                Categorical(name="sex", categories=("Female", "Male"), unknown="Female", group=True),
            ),
        ),
        train=draw(records),
        evaluation=draw(evaluation),
        evaluation_name="made by hand (public)",
        source=Source(name="made by hand"),
        evaluation_public=True,
    )


def parts(**changes: Any) -> Parts:
    """The parts of a tiny run, with unequal clients and a hidden layer."""
    sizes = {"name": "lognormal", "sigma": 0.7}
    partition = {"name": "dirichlet", "by": "label", "alpha": 1.0, "sizes": sizes}
    values = {"federation__partition": partition, "model": {"name": "mlp", "hidden": [4]}, **changes}
    return compose(make_config(config(**values)))


def plan(of: Parts, *, noise: float = 1.0, cap: int | None = None) -> PrivacyPlan:
    """A plan of the noise given, calibrated to nothing; no noise means that no level is private."""
    values = of.config
    epsilon = 1.0 if noise else float("inf")
    return PrivacyPlan(
        clients=values.federation.clients,
        rounds=values.rounds,
        record=RecordPlan(
            epsilon=epsilon,
            delta=1e-5,
            clip=1.0,
            rate=values.client.rate,
            steps=values.client.all_steps,
            local_steps=values.client.steps_for_local,
            max_participations=cap or values.rounds,
            noise=noise,
        ),
        client=ClientPlan(
            epsilon=epsilon,
            delta=1e-3,
            clip=1.0,
            rate=values.federation.cohort.rate,
            noise=noise,
            grid_bits=grid_bits(1.0, values.federation.clients),
        ),
        program=program_digest(of),
    )


def apps(of: Parts, by: PrivacyPlan, key: bytes = bytes(32)) -> Any:
    """What makes the client app."""
    return client_apps(of, by, key)


def play(
    of: Parts,
    by: PrivacyPlan,
    grid: Grid,
    ledger: Path,
    *,
    key: bytes = bytes(32),
    last: int | None = None,
    after: RoundOutcome | None = None,
    sizes: Sequence[int] | None = None,
    secure: SecureRounds | None = None,
) -> list[RoundOutcome]:
    """Run rounds on a grid, from the start or after a round, with a ledger that is made or opened."""
    opened = (
        Ledger.open(ledger, by, key_fingerprint="key")
        if ledger.exists()
        else Ledger.create(ledger, by, key_fingerprint="key")
    )
    aggregator = aggregator_of(of, by)
    if after is not None and after.aggregator_state is not None:
        aggregator.restore(after.aggregator_state)
    strategy = NoisyAverage(
        plan=by,
        aggregator=aggregator,
        layout=of.layout,
        optimizer=server_optimizer_of(of),
        ledger=opened,
        key=key,
        optimizer_state=None if after is None else after.optimizer_state,
        sizes=sizes,
        secure=secure,
    )
    outcomes: list[RoundOutcome] = []

    def on_round(outcome: RoundOutcome) -> bool:
        outcomes.append(outcome)
        return True

    app = make_server_app(
        strategy,
        of.initial if after is None else after.parameters,
        first_round=1 if after is None else after.round + 1,
        last_round=last or by.rounds,
        on_round=on_round,
    )
    try:
        app(grid, server_context())
    finally:
        opened.close()
    return outcomes


def batch_normalised(features: int, outputs: int) -> nn.Module:
    """A model that mixes the records of a batch."""
    return nn.Sequential(nn.Linear(features, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, outputs))


class SlowAssessor:
    """Takes its time, and waits for nothing but it: a window to interrupt a round in."""

    name = "slow"

    def plan(self, subject: Any, tier: str) -> Any:
        from fedsafe.assess import Cost

        return Cost(description="sleeps")

    def __call__(self, subject: Any, *, rng: np.random.Generator, tier: str) -> list[Any]:
        import time

        time.sleep(0.4)
        return []


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in values.items()}
