"""A federation of two clients in a folder, whose records follow a small public schema."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

NAMES = ("north", "south")
RECORDS = 60
KEPT = 48  # after the fifth that a client keeps to judge the model on
SCHEMA = {
    "format": "fedsafe.schema/1",
    "label": {"column": "ill", "classes": ["no", "yes"]},
    "columns": {
        "age": {"kind": "numeric", "low": 20, "high": 90},
        "smokes": {"kind": "categorical", "categories": ["no", "yes"]},
    },
}
EXPERIMENT = {
    "model": "logistic",
    "rounds": 2,
    "federation": {"cohort": {"name": "poisson", "rate": 1.0}},
    "client": {"steps": 1, "rate": 0.5},
    "server": {"aggregator": "fedavg"},
    "privacy": {"record": {"epsilon": 3.0, "delta": 1e-5}, "client": {"epsilon": float("inf")}},
    "assess": {"every": 2, "assessors": ["performance"]},
}


def records_of(client: str, *, bad: str | None = None) -> str:
    """The records of one client as CSV; a bad one has a smoker of a category that is not in the schema."""
    rng = np.random.default_rng(sum(map(ord, client)))
    lines = ["age,smokes,ill"]
    for _ in range(RECORDS):
        age, smokes = rng.integers(20, 90), rng.random() < 0.4
        ill = age / 90 + 0.4 * smokes + rng.normal(0, 0.2) > 0.8
        lines.append(f"{age},{'yes' if smokes else 'no'},{'yes' if ill else 'no'}")
    if bad is not None:
        lines[7] = bad
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """``make(folder, port=..., **wanted)`` writes a federation with its records in place."""
    from fedsafe.deploy.federation import Client
    from fedsafe.deploy.folder import Wanted, write_federation

    given = tmp_path_factory.mktemp("given")
    (given / "schema.toml").write_text(tomli_w.dumps(SCHEMA))
    (given / "experiment.toml").write_text(tomli_w.dumps(EXPERIMENT))

    def write(folder: Path, **wanted: Any) -> Any:
        values = {
            "name": "trial",
            "clients": tuple(Client(name=name) for name in NAMES),
            "config": given / "experiment.toml",
            "schema": given / "schema.toml",
            "records": dict.fromkeys(NAMES, KEPT),
        }
        federation = write_federation(folder, Wanted(**{**values, **wanted}))
        for name in federation.names:
            records = federation.client_folder(name) / "records" / "patients.csv"
            records.write_text(records_of(name))
        return federation

    return write
