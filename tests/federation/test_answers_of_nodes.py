"""A node answers for one client: whatever else it sends is its own failure, and ends nobody else's run."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from tiny_federation import apps, parts, plan, play

from fedsafe.aggregation import Fold
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.errors import EngineError
from fedsafe.federation.answers import Expected, require_expected
from fedsafe.federation.messages import Reply, read_reply
from fedsafe.runs.compose import client_runtime

RULES = ("noisy_mean", "fedavg", "median", "agnostic")


def played(folder, aggregator, meddle, *, uploads=False):
    """The outcomes of a run of nodes whose first answer is changed, and what a run has without that client."""
    proven = aggregator == "noisy_mean"
    levels = ("privacy__client__epsilon", "privacy__record__epsilon")
    of = parts(server__aggregator=aggregator, **({} if proven else dict.fromkeys(levels, float("inf"))))
    by = plan(of, noise=1.0 if proven else 0.0)
    runtime, met = client_runtime(of, by, bytes(32)), []

    def one(message, context):
        reply = (runtime.upload if uploads else runtime.answer)(message, context)
        met.append(reply)
        return meddle(reply) if len(met) == 1 else reply

    grid = InlineGrid(clients=by.clients, apps=ClientApps(one=one, batch=None))
    return play(of, by, grid, folder / "ledger", sizes=of.records.sizes.tolist())


def sent(reply: Message, content: dict) -> Message:
    answer = Message(RecordDict(content), dst_node_id=0, message_type="train")
    answer.metadata.__dict__.update(reply.metadata.__dict__)
    return answer


def refolded(change, **info):
    """Changes the arrays of a fold, or what is said of it."""

    def meddle(reply):
        said = read_reply(reply)
        arrays = change({name: value.copy() for name, value in said.fold.arrays.items()})
        told = {"clients": said.clients, "failures": said.failures, "cpu-seconds": 0.0, **info}
        return sent(
            reply,
            {
                "fold": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
                "info": MetricRecord(told),
                "error": ConfigRecord({"text": ""}),
            },
        )

    return meddle


def same(arrays):
    return arrays


def failures(outcomes):
    return [outcome.failures for outcome in outcomes]


@pytest.mark.parametrize("aggregator", RULES)
def test_honest_answers_all_count(tmp_path, aggregator):
    assert failures(played(tmp_path, aggregator, refolded(same))) == [0, 0, 0]


@pytest.mark.parametrize("aggregator", RULES)
@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: {},
        lambda arrays: {**arrays, "more": np.zeros(1)},
        lambda arrays: {f"{name}s": value for name, value in arrays.items()},
        lambda arrays: {name: np.zeros(3, value.dtype) for name, value in arrays.items()},
        lambda arrays: {name: value.astype(np.complex128) for name, value in arrays.items()},
        lambda arrays: {name: value[..., None] for name, value in arrays.items()},
        lambda arrays: {name: np.zeros((), value.dtype) for name, value in arrays.items()},
    ],
)
def test_a_fold_that_the_rule_cannot_merge_is_that_clients_failure(tmp_path, aggregator, change):
    assert failures(played(tmp_path, aggregator, refolded(change))) == [1, 0, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_rows_that_are_not_finite_or_would_overflow_are_that_clients_failure(tmp_path, value):
    def change(arrays):
        return {**arrays, "rows": np.full_like(arrays["rows"], value)}

    assert failures(played(tmp_path, "median", refolded(change))) == [1, 0, 0]


@pytest.mark.parametrize("number", [-1, 7, 10**6])
def test_rows_of_another_client_are_refused(tmp_path, number):
    def change(arrays):
        other = (arrays["clients"] + 1) % 12 if number == 7 else np.full_like(arrays["clients"], number)
        return {**arrays, "clients": other}

    assert failures(played(tmp_path, "agnostic", refolded(change))) == [1, 0, 0]


def test_more_rows_than_one_are_refused(tmp_path):
    def change(arrays):
        return {name: np.concatenate([value] * 50) for name, value in arrays.items()}

    assert failures(played(tmp_path, "median", refolded(change))) == [1, 0, 0]


@pytest.mark.parametrize("aggregator", ["fedavg", "median"])
@pytest.mark.parametrize("times", [2, 2**40, -1])
def test_the_number_of_records_of_a_fold_is_the_plans(tmp_path, aggregator, times):
    def change(arrays):
        return {**arrays, "examples": arrays["examples"] * times}

    assert failures(played(tmp_path, aggregator, refolded(change))) == [1, 0, 0]


@pytest.mark.parametrize("more", [1, 2**52])
def test_the_number_of_records_of_an_upload_is_the_plans(tmp_path, more):
    def meddle(reply):
        info = reply.content.metric_records["info"]
        upload = reply.content.array_records["upload"]
        return sent(
            reply, {"upload": upload, "info": MetricRecord({"examples": int(info["examples"]) + more})}
        )

    assert failures(played(tmp_path, "fedavg", meddle, uploads=True)) == [1, 0, 0]
    (tmp_path / "honest").mkdir()
    assert failures(played(tmp_path / "honest", "fedavg", same, uploads=True)) == [0, 0, 0]


@pytest.mark.parametrize(
    "info",
    [
        {"clients": 10**6},
        {"clients": -1},
        {"clients": 0.5},
        {"clients": [1]},
        {"failures": 1},
        {"cpu-seconds": float("nan")},
        {"cpu-seconds": -1.0},
        {"cpu-seconds": [1.0]},
    ],
)
def test_a_client_answers_for_itself_alone(tmp_path, info):
    assert failures(played(tmp_path, "fedavg", refolded(same, **info))) == [1, 0, 0]


def test_a_fold_under_another_clip_than_was_announced_is_refused():
    nothing = Fold(arrays={"total": np.zeros(3, np.int64), "clip": np.zeros(1)})

    def answer(clip):
        fold = Fold(arrays={**nothing.arrays, "clip": np.array([clip])})
        return Reply(fold=fold, clients=1, failures=0, error="", cpu_seconds=0.0)

    expected = Expected(like=nothing, announced={"clip": 0.5})
    require_expected(answer(0.5), 3, expected)
    with pytest.raises(EngineError, match="another clip than was announced"):
        require_expected(answer(1.0), 3, expected)


def test_a_simulation_is_not_held_to_it(tmp_path):
    of = parts()
    by = plan(of)
    outcomes = play(of, by, InlineGrid(clients=by.clients, apps=apps(of, by)()), tmp_path / "ledger")
    assert failures(outcomes) == [0, 0, 0]
