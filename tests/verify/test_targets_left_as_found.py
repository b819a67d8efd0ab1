"""A target that was checked is as it was: its own records are in their place again."""

import importlib
import sys

from claims_of_faults import HERE

from fedsafe.verify import read_claim, verify

ELSEWHERE = HERE / "faults_elsewhere"


def test_the_records_of_a_client_are_its_own_again():
    claim = read_claim(ELSEWHERE / "exact_counts" / "claim.toml")
    verify("exact_counts.client:corrected", claim, path=ELSEWHERE, only=["epsilon"])
    client, task = (importlib.import_module(f"exact_counts.{name}") for name in ("client", "task"))
    assert client.load_data is task.load_data
    assert task.load_data.__module__ == "exact_counts.task"
    assert "exact_counts.client" in sys.modules
