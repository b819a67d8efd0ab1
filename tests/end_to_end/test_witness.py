"""A witness of every outgoing message is never ahead of the ledger; ``benchmarks/witness.py`` kills a hundred times."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WITNESS = Path(__file__).parents[2] / "benchmarks" / "witness.py"


@pytest.fixture(scope="module")
def found():
    """Three kills, in a process that has no other tests' threads to inherit."""
    done = subprocess.run(
        [sys.executable, WITNESS, "--kills", "3", "--seed", "5", "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_after_kills_at_random_moments_the_ledger_knows_every_message_that_left(found):
    assert found["kills"] >= 3
    assert found["messages"] > 0
    assert found["ahead"] == []


def test_a_run_that_sends_before_it_reserves_is_caught(found):
    assert found["control"]
    assert found["control"][0].startswith("round 1 to client")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("a truncated tail", "was truncated, or is an older copy"),
        ("a restored older copy", "was truncated, or is an older copy"),
        ("an edited row", "the chain of the ledger breaks at event"),
    ],
)
def test_a_ledger_that_was_touched_is_detected_and_not_resumed(found, damage, said):
    assert said in found["damages"][damage]


def test_the_same_run_untouched_is_resumed_and_the_witness_is_not_ahead_of_it(found):
    assert found["damages"]["untouched"] == "resumed"
