"""Runs in one stack: each leaves behind what it would alone, to the last bit, whatever runs beside it."""

import json
import math
import threading

import numpy as np
import pytest
from tiny_federation import config

import fedsafe.client.stacked.stacked_trainer as training
from fedsafe.errors import ConfigError, EngineError
from fedsafe.params import fingerprint
from fedsafe.runs import make_config, run
from fedsafe.runs.stacked_runs import prepare_runs, stacked_runs

SEEDED = {"privacy__noise_key": "seed"}
OPEN = {"privacy__client__epsilon": math.inf, "privacy__record__epsilon": math.inf}
SKEWED = {"name": "dirichlet", "by": "label", "alpha": 0.5}
# Noise and none, other learning rates, seeds, partitions, rules, lengths, and a rule that remembers.
VARIETY = [
    config(**SEEDED),
    config(**SEEDED, seed=1),
    config(**SEEDED, **OPEN, server__aggregator="median"),
    config(**SEEDED, **OPEN, server__aggregator="scaffold", server__optimizer={"momentum": 0.0}),
    config(**SEEDED, federation__partition=SKEWED, client__optimizer={"lr": 0.3}),
    config(**SEEDED, rounds=2, privacy__record__epsilon=0.5),
    config(**SEEDED, model={"name": "mlp", "hidden": [4]}),
    config(**SEEDED, privacy__record__max_participations=1),
]


def models(configs):
    found = [[] for _ in configs]
    for number, outcome in stacked_runs(prepare_runs([make_config(one) for one in configs])):
        assert outcome.round == len(found[number]) + 1
        found[number].append(fingerprint(outcome.parameters))
    return found


@pytest.fixture(scope="module")
def together():
    return models(VARIETY)


@pytest.mark.parametrize("number", range(len(VARIETY)))
def test_a_run_in_a_stack_is_the_run_alone(together, number, tmp_path):
    alone = run(make_config(VARIETY[number]), out=tmp_path / "run")
    lines = [json.loads(line) for line in (alone.path / "record.jsonl").read_text().splitlines()]
    assert together[number] == [line["parameters_sha256"] for line in lines if line["kind"] == "round"]


def test_what_runs_beside_changes_nothing(together):
    assert models(VARIETY[::-1])[::-1] == together
    assert models(VARIETY[:1]) == together[:1]


def test_runs_differ_where_their_configurations_do(together):
    # The test above could otherwise pass by training one run over and over.
    assert len({found[0] for found in together}) == len(together)


def test_runs_are_trained_in_one_call(monkeypatch):
    calls = []
    whole = training.StackedTrainer.train

    def counted(self, parameters, jobs):
        calls.append(len(jobs))
        return whole(self, parameters, jobs)

    monkeypatch.setattr(training.StackedTrainer, "train", counted)
    configs = [config(**SEEDED, seed=seed, federation__cohort={"rate": 1.0}) for seed in range(4)]
    models(configs)
    # A client to warm up, and three rounds of every client of four runs.
    assert [call for call in calls if call > 1] == [4 * 12] * 3


def test_what_runs_have_in_common_is_made_once():
    runs = prepare_runs([make_config(config(**SEEDED, privacy__record__epsilon=e)) for e in (0.1, 0.2)])
    assert runs[0].parts.task is runs[1].parts.task
    assert runs[0].plan.hash != runs[1].plan.hash


def test_a_key_is_new_unless_it_follows_from_the_seed():
    fresh = prepare_runs([make_config(config())] * 2)
    assert fresh[0].key != fresh[1].key
    assert repr(fresh[0].key) not in repr(fresh[0])
    same = prepare_runs([make_config(config(**SEEDED))] * 2)
    assert same[0].key == same[1].key


def test_a_run_that_fails_ends_the_others(monkeypatch):
    runs = prepare_runs([make_config(config(**SEEDED, seed=seed)) for seed in range(3)])
    whole = training.StackedTrainer.train

    def broken(self, parameters, jobs):
        if any(np.array_equal(job.start, runs[1].parts.initial) for job in jobs if job.start is not None):
            raise ArithmeticError("no such luck")
        return whole(self, parameters, jobs)

    before = threading.active_count()
    monkeypatch.setattr(training.StackedTrainer, "train", broken)
    with pytest.raises(EngineError, match="no such luck"):
        list(stacked_runs(runs))
    assert threading.active_count() == before


def test_whoever_stops_listening_leaves_no_thread():
    before = threading.active_count()
    rounds = stacked_runs(prepare_runs([make_config(config(**SEEDED, seed=seed)) for seed in range(3)]))
    next(rounds)
    rounds.close()
    assert threading.active_count() == before


def test_nodes_cannot_be_stacked():
    with pytest.raises(ConfigError, match="one run at a time"):
        prepare_runs([make_config(config(engine={"name": "flower"}))])
