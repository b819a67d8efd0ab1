"""Rounds of Flower's own simulation, timed by the app's clock in a process of their own."""

import json
import sys
from typing import Any

import numpy as np
from comparing import HERE, run_json


def flower_run(
    server: str, client: str, nodes: int, *, timeout: float = 1800.0, **values: Any
) -> dict[str, Any]:
    """What ``peers/flower_simulation.py`` prints: the seconds of the whole run, and each round's metrics."""
    given = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    command = [
        sys.executable,
        str(HERE / "peers" / "flower_simulation.py"),
        server,
        client,
        str(nodes),
        *given,
    ]
    found: dict[str, Any] = run_json(command, timeout=timeout)
    return found


def flower_rounds(server: str, client: str, nodes: int, **values: Any) -> list[float]:
    """Seconds between the ends of successive rounds, the first round left out."""
    return seconds_between(flower_run(server, client, nodes, **values)["rounds"])


def seconds_between(rounds: list[dict[str, float]]) -> list[float]:
    """From the clock after each round, from that before the first on; the first round is left out."""
    seconds: list[float] = np.diff([line["clock"] for line in rounds])[1:].tolist()
    return seconds
