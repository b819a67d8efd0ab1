"""Clients that are away, drop out or are late while a round is summed behind masks are its dropouts."""

import json

import numpy as np
import pytest
import tiny_federation as tiny

from fedsafe.errors import EngineError
from fedsafe.federation import secure_rounds
from fedsafe.records import Round
from fedsafe.runs import resume, run
from fedsafe.store import RunFolder

CLIENTS = 20
AWAY = {"name": "diurnal", "low": 0.97, "high": 0.99, "period": 40.0, "dropout": 0.02}
LATE = {
    "name": "always",
    "deadline": 14.0,
    "network_seconds": 4.0,
    "seconds_per_record": 1.0,
    "speed": {"name": "lognormal", "sigma": 0.7},
}


def values(rounds=3, **availability):
    return tiny.config(
        rounds=rounds,
        aggregation__secure=True,
        aggregation__dropouts=0.45,
        server__aggregator={"name": "distributed_mean", "minimum": 4},
        federation__clients=CLIENTS,
        federation__partition={"name": "iid"},
        federation__cohort={"rate": 1.0},
        federation__availability=availability,
        privacy__client__epsilon=5.0,
        privacy__noise_key="seed",
        seed=3,
    )


@pytest.mark.parametrize("availability", [AWAY, LATE], ids=["away", "late"])
def test_who_is_away_at_any_stage_is_a_dropout(availability, tmp_path, monkeypatch):
    counted = []
    real = secure_rounds.SecureExchange.run

    def watched(self, send):
        found = real(self, send)
        counted.append((len(self.nodes), len(found.clients), found.total.copy()))
        return found

    monkeypatch.setattr(secure_rounds.SecureExchange, "run", watched)
    done = run(values(**availability), out=tmp_path / "run")
    lines = [line for line in RunFolder.open(done.path).record() if isinstance(line, Round)]
    timings = [
        json.loads(text) for text in (done.path / "private" / "timings.jsonl").read_text().splitlines()
    ]
    assert len(lines) == 3
    assert len(counted) == 3
    assert any(summed < asked for asked, summed, _ in counted)
    assert all(summed >= 4 for _, summed, _ in counted)
    # Every stage that a client is asked for is one more chance to be away.
    assert sum(line["missing"] for line in timings) >= sum(asked - summed for asked, summed, _ in counted)
    assert all(np.any(total) for _, _, total in counted)


def test_a_round_that_loses_too_many_leaves_the_model_and_says_why(tmp_path):
    done = run(values(rounds=2, name="diurnal", low=0.1, high=0.2, period=40.0), out=tmp_path / "run")
    lines = [line for line in RunFolder.open(done.path).record() if isinstance(line, Round)]
    assert len({line.parameters_sha256 for line in lines}) == 1
    timings = (done.path / "private" / "timings.jsonl").read_text().splitlines()
    assert all("are needed" in json.loads(line)["aborted"] for line in timings)
    assert resume(tmp_path / "run").path == done.path


def test_a_run_that_gets_no_sum_three_times_in_a_row_ends(tmp_path):
    with pytest.raises(EngineError, match="3 rounds in a row were ended without a sum"):
        run(values(rounds=4, name="diurnal", low=0.1, high=0.2, period=40.0), out=tmp_path / "run")
    lines = [line for line in RunFolder.open(tmp_path / "run").record() if isinstance(line, Round)]
    assert len(lines) == 3
