"""Unmodified Flower apps come to the same result on our grids and in Flower's own simulation."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from quiet_environment import QUIET

from fedsafe.engine.flower_app import find_app
from fedsafe.engine.simulation import simulate

HERE = Path(__file__).parent
APPS = HERE / "flower_apps"
NAMES = ["quickstart", "custom_strategy", "stateful", "older_style", "workflow"]
NODES = 4


@pytest.fixture(scope="module")
def flowers_own(ray_temp, tmp_path_factory):
    """What Flower's simulation gives for all apps, in a process of its own."""
    environment = {
        **os.environ,
        **QUIET,
        "RAY_TMPDIR": str(ray_temp),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_HOME": str(tmp_path_factory.mktemp("flwr")),
    }
    done = subprocess.run(
        [
            sys.executable,
            HERE / "flowers_own_simulation.py",
            str(NODES),
            *(str(APPS / name) for name in NAMES),
        ],
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def as_json(metrics):
    return json.loads(json.dumps(metrics))


def close(found, expected):
    """Equal, numbers up to the order of summation, which Flower leaves to chance."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            close(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    else:
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_result_as_flowers_own_simulation(name, flowers_own, ray_of_two):
    app = find_app(str(APPS / name))
    random.seed(1)  # Flower's strategies draw the order of the nodes from here
    over_ray = simulate(app, nodes=NODES, workers=2)
    random.seed(1)
    inline = simulate(app, nodes=NODES, workers=1, engine="inline")
    assert over_ray.metrics == inline.metrics, "to the bit: replies come in the order of the messages"
    assert over_ray.tally == inline.tally
    arrays = [array.numpy().tolist() for array in over_ray.result.arrays.values()] if over_ray.result else []
    expected = flowers_own[name]
    assert any(expected["metrics"].values())
    close(as_json(over_ray.metrics), expected["metrics"])
    close(arrays, expected["arrays"])
    assert over_ray.tally.errors == (2 if name == "stateful" else 0)
