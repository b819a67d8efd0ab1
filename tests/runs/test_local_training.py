"""Training alone and fine-tuning: what they cost a record, what noise they get, and what they are held to."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny_federation
from tiny_federation import config

from fedsafe.data import Examples
from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting import SampledGaussian, account
from fedsafe.runs import local_training, make_config
from fedsafe.runs.local_plans import (
    ALONE,
    ARMS,
    FEDERATED,
    FINE_TUNED,
    OwnTraining,
    plan_of,
    plans_of,
)
from fedsafe.runs.local_training import local_cells, train_own
from fedsafe.runs.stacked_runs import prepare_runs, stacked_runs, trainers_of

HOSPITALS = ("East", "North", "West")
OWN = {"alone": OwnTraining(rounds=4, lr=0.5, momentum=0.5), "fine_tuned": OwnTraining(rounds=2, lr=0.25)}


def with_holders(examples: Examples, hospitals=HOSPITALS) -> Examples:
    names = np.array(hospitals)[np.arange(len(examples)) % len(hospitals)]
    return replace(examples, holders={"hospital": names})


def task():
    whole = tiny_federation.task()
    return replace(whole, train=with_holders(whole.train), evaluation=with_holders(whole.evaluation))


def others_judge():
    whole = task()
    return replace(whole, evaluation=with_holders(whole.evaluation, ("South", "Centre", "Far")))


def local(**changes):
    return make_config(
        config(
            **{
                "task": "test_local_training:task",
                "federation__clients": None,
                "federation__partition": {"name": "natural", "by": "hospital"},
                "federation__cohort": {"rate": 1.0},
                "server__aggregator": "fedavg",
                "server__optimizer": {"momentum": 0.0},
                "privacy__noise_key": "seed",
                "privacy__client__epsilon": math.inf,
                **changes,
            }
        )
    )


@pytest.mark.parametrize("capped", [None, 2])
def test_each_way_costs_a_record_the_same_epsilon(capped):
    changes = {} if capped is None else {"privacy__record__max_participations": capped}
    (run,) = prepare_runs([local(privacy__record__epsilon=2.0, **changes)])
    plans = plans_of(run, **OWN)
    for arm in ARMS:
        plan = plans.of(arm)
        spent = plan.record_epsilon(plan.rounds, plan.record.max_participations)
        assert 1.99 < spent <= 2.0
    # What is released, as separate parts that an accountant composes: the federation's steps and the client's own.
    shared = plans.shared.record.mechanism()
    own = SampledGaussian(rate=0.25, noise=plans.fine_tuned.record.noise, count=2 * 2)
    assert shared.noise == own.noise
    assert shared.count == (capped or 3) * 2
    assert account([shared, own], plans.shared.record.delta).epsilon <= 2.0 + 1e-6
    # With the noise of the federation alone the target would be missed.
    cheaper = [replace(part, noise=run.plan.record.noise) for part in (shared, own)]
    assert account(cheaper, plans.shared.record.delta).epsilon > 2.0


def test_noise_is_that_of_the_plan(monkeypatch):
    """Parameters after one step of noise alone: the right scale passes, two thirds and three halves fail."""
    (run,) = prepare_runs([local(privacy__record__epsilon=0.02)])
    own = OwnTraining(rounds=1, lr=0.01)
    plan = plan_of(run.parts, 1)
    (trainer,) = trainers_of([run])
    runs = [replace(run, key=seed.to_bytes(32, "little")) for seed in range(300)]
    rows = train_own(
        runs, [trainer] * len(runs), [plan] * len(runs), own, [run.parts.initial] * len(runs), ALONE
    )
    records = np.array([len(rows) for rows in run.parts.records])
    level = plan.record
    expected = math.sqrt(level.steps) * own.lr * level.noise * level.clip / (level.rate * records)
    found = (np.stack(rows) - run.parts.initial).std(axis=(0, 2))
    assert level.noise > 40.0  # so that gradients, which are clipped, hardly move the parameters
    right = np.abs(found / expected - 1.0) < 0.12
    assert right.all()
    for wrong in (2 / 3, 3 / 2):
        assert not (np.abs(found / (wrong * expected) - 1.0) < 0.12).any()


def test_training_alone_without_privacy_is_gradient_descent():
    """Held to a loop over steps in float64: full batches, momentum, no noise."""
    (run,) = prepare_runs([local(privacy__record__epsilon=math.inf, client__rate=1.0, client__steps=1)])
    own = OwnTraining(rounds=5, lr=0.3, momentum=0.5)
    (rows,) = train_own([run], trainers_of([run]), [plan_of(run.parts, 5)], own, [run.parts.initial], ALONE)
    train = run.parts.task.train
    for client, row in enumerate(rows):
        x, y = train.x[run.parts.records[client]].astype(float), train.y[run.parts.records[client]]
        weights, bias = run.parts.initial[:-1].astype(float), float(run.parts.initial[-1])
        moved = np.zeros(len(weights) + 1)
        for _ in range(5):
            error = 1.0 / (1.0 + np.exp(-(x @ weights + bias))) - y
            moved = 0.5 * moved + np.append(x.T @ error, error.sum()) / len(x)
            weights, bias = weights - 0.3 * moved[:-1], bias - 0.3 * moved[-1]
        assert np.allclose(row, np.append(weights, bias), atol=1e-5)


@pytest.fixture(scope="module")
def kept():
    configs = [local(privacy__record__epsilon=e, seed=seed) for e in (1.0, math.inf) for seed in (0, 1)]
    return configs, [result for _, result in local_cells(configs, **OWN)]


def test_what_is_kept_of_a_cell(kept):
    _, results = kept
    for number, result in enumerate(results):
        assert result["clients"] == list(HOSPITALS)
        assert result["records"] == [80, 80, 80]
        for arm in ARMS:
            found = result["arms"][arm]
            assert [len(scores) for scores in found["scores"]] == [20, 20, 20]
            if number < 2:
                assert found["epsilon"] == pytest.approx(1.0, abs=0.01)
            else:
                assert found["epsilon"] is None
        assert result["arms"][FINE_TUNED]["steps"] == (3 + 2) * 2
        assert result["arms"][ALONE]["steps"] == 4 * 2
        assert result["arms"][FEDERATED]["steps"] == 3 * 2


def test_a_cell_is_the_same_whatever_is_beside_it(kept):
    configs, results = kept
    ((_, alone),) = local_cells(configs[1:2], **OWN)
    assert alone == results[1]


def test_the_federated_model_is_that_of_the_run(kept):
    configs, results = kept
    (run,) = prepare_runs(configs[:1])
    last = [outcome.parameters for _, outcome in stacked_runs([run])][-1]
    judge = local_training.Judge(run.parts, [], run.plan)
    evaluation = run.parts.task.evaluation
    for name, scores in zip(results[0]["clients"], results[0]["arms"][FEDERATED]["scores"], strict=True):
        mine = evaluation.take(np.flatnonzero(evaluation.holders["hospital"] == name))
        assert judge.subject(3, last).per_record(mine)[1].tolist() == scores


def test_the_majority_is_each_clients_own(kept):
    _, results = kept
    whole = task()
    for name, scores in zip(HOSPITALS, results[0]["majority"], strict=True):
        most = np.bincount(whole.train.y[whole.train.holders["hospital"] == name]).argmax()
        there = whole.evaluation.y[whole.evaluation.holders["hospital"] == name]
        assert scores == (there == most).astype(float).tolist()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"privacy__client__epsilon": 8.0, "server__aggregator": "noisy_mean"}, "privacy.client.epsilon"),
        ({"privacy__record__noise": 2.0, "privacy__record__epsilon": 5.0}, "privacy.record.noise"),
        ({"federation__partition": {"name": "iid"}, "federation__clients": 3}, "federation.partition"),
        ({"task": "test_local_training:others_judge"}, "somebody else's"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        list(local_cells([local(**changes)], **OWN))


@pytest.mark.parametrize("numbers", [{"rounds": 0, "lr": 1.0}, {"rounds": 1, "lr": 0.0}])
def test_own_training_out_of_range_is_refused(numbers):
    with pytest.raises(ConfigError, match="own"):
        OwnTraining(**numbers)
