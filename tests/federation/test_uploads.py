"""A real client sends its trained model in place of a fold of one: fewer bytes, and the same bits at the server."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from tiny_federation import parts, plan, play

from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.errors import EngineError
from fedsafe.federation import ClientRuntime
from fedsafe.federation.messages import read_reply, read_upload
from fedsafe.runs.compose import client_runtime

Answer = Callable[[ClientRuntime], Callable]


def played(ledger, answer: Answer, *, aggregator: str = "fedavg", meddle=lambda reply: reply):
    """The outcomes of three rounds whose messages are answered one by one, all replies, and the parts."""
    of = parts(server__aggregator=aggregator, privacy__client__epsilon=float("inf"))
    by, replies = plan(of), []
    if aggregator == "fedavg":  # it proves nothing at the client level
        by = replace(by, client=replace(by.client, epsilon=float("inf"), noise=0.0))
    call = answer(client_runtime(of, by, bytes(32)))

    def one(message, context):
        replies.append(meddle(call(message, context)))
        return replies[-1]

    grid = InlineGrid(clients=by.clients, apps=ClientApps(one=one, batch=None))
    return play(of, by, grid, ledger), replies, of


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    return (
        played(folder / "folds", lambda runtime: runtime.train),
        played(folder / "uploads", lambda runtime: runtime.upload),
    )


def test_the_model_is_the_same_to_the_last_bit(both):
    folded, uploaded = (outcomes for outcomes, *_ in both)
    assert len(folded) == len(uploaded) == 3
    for one, other in zip(folded, uploaded, strict=True):
        assert one.parameters.tobytes() == other.parameters.tobytes()
    assert folded[0].parameters.tobytes() != folded[1].parameters.tobytes()


def test_an_upload_has_four_bytes_for_each_parameter(both):
    (_, folds, _), (_, uploads, of) = both
    size = [
        len(message.content.array_records[name][array].data)
        for message, name, array in ((uploads[0], "upload", "trained"), (folds[0], "fold", "fraction"))
    ]
    header = 128
    assert size == [4 * of.layout.total + header, 8 * of.layout.total + header]
    assert read_upload(folds[0], of.layout) is None


def test_a_rule_that_clips_at_the_client_still_gets_a_fold(tmp_path):
    _, replies, of = played(tmp_path / "ledger", lambda runtime: runtime.upload, aggregator="noisy_mean")
    assert replies
    assert all(read_upload(reply, of.layout) is None for reply in replies)
    assert read_reply(replies[0]) is not None


def changed(reply: Message, **values) -> Message:
    """The same answer with another array or number in it."""
    trained = values.get("trained", reply.content.array_records["upload"]["trained"].numpy())
    examples = values.get("examples", reply.content.metric_records["info"]["examples"])
    content = RecordDict(
        {
            "upload": ArrayRecord({"trained": Array(trained)}),
            "info": MetricRecord({"examples": examples}),
        }
    )
    answer = Message(content, dst_node_id=0, message_type="train")
    answer.metadata.__dict__.update(reply.metadata.__dict__)
    return answer


@pytest.mark.parametrize(
    "values",
    [
        {"trained": np.zeros(3, np.float32)},
        {"trained": np.zeros(3, np.float64)},
        {"examples": 0},
        {"examples": -5},
        {"examples": 0.5},
    ],
)
def test_an_upload_that_cannot_be_one_is_refused(both, values):
    _, (_, uploads, of) = both
    with pytest.raises(EngineError):
        read_upload(changed(uploads[0], **values), of.layout)


def test_one_client_that_sends_nonsense_counts_as_one_that_failed(tmp_path):
    met = []

    def meddle(reply):
        met.append(reply)
        return changed(reply, examples=-1) if len(met) == 1 else reply

    outcomes, *_ = played(tmp_path / "ledger", lambda runtime: runtime.upload, meddle=meddle)
    assert [outcome.failures for outcome in outcomes] == [1, 0, 0]


def test_numbers_that_are_not_finite_count_as_no_update(tmp_path):
    def meddle(reply):
        trained = reply.content.array_records["upload"]["trained"].numpy().copy()
        trained[0] = np.nan
        return changed(reply, trained=trained)

    outcomes, _, of = played(tmp_path / "ledger", lambda runtime: runtime.upload, meddle=meddle)
    assert outcomes[-1].parameters.tobytes() == of.initial.tobytes()


def test_a_rule_that_does_not_fold_uploads_counts_them_as_failed(tmp_path):
    def answer(runtime):
        return lambda message, context: changed_to_upload(runtime, message)

    with pytest.raises(EngineError, match=r"every client of round 1 failed.*noisy_mean does not fold"):
        played(tmp_path / "ledger", answer, aggregator="noisy_mean")


def changed_to_upload(runtime: ClientRuntime, message: Message) -> Message:
    trained = np.zeros(runtime.trainer.layout.total, np.float32)
    content = RecordDict(
        {"upload": ArrayRecord({"trained": Array(trained)}), "info": MetricRecord({"examples": 3})}
    )
    return Message(content, reply_to=message)


def bytes_that_are_no_array() -> Array:
    return Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=b"no array")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"upload": ArrayRecord({}), "info": MetricRecord({"examples": 3})},
        {
            "upload": ArrayRecord({"trained": bytes_that_are_no_array()}),
            "info": MetricRecord({"examples": 3}),
        },
        {"upload": ArrayRecord({"trained": Array(np.zeros(3, np.float32))})},
        {"upload": MetricRecord({"trained": 3})},
        {"fold": ArrayRecord({})},
        {"fold": ArrayRecord({"whole": bytes_that_are_no_array()}), "info": MetricRecord({"clients": 1})},
    ],
)
def test_one_client_that_sends_other_records_ends_nobody_elses_run(tmp_path, content):
    met = []

    def meddle(reply):
        met.append(reply)
        if len(met) > 1:
            return reply
        answer = Message(RecordDict(content), dst_node_id=0, message_type="train")
        answer.metadata.__dict__.update(reply.metadata.__dict__)
        return answer

    outcomes, *_ = played(tmp_path / "ledger", lambda runtime: runtime.upload, meddle=meddle)
    assert [outcome.failures for outcome in outcomes] == [1, 0, 0]
