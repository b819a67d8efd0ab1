"""What the trial federation of these tests is about: a small public schema, an experiment, and records."""

import numpy as np

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
