"""Packed messages: what is put in comes out, and nothing of a client's is opened that is larger than a model."""

import tracemalloc
import zlib

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedsafe.apps.packing import KEYS, PACKED, pack_reply, pack_request, unpack_reply, unpack_request
from fedsafe.engine.grid import identify
from fedsafe.errors import EngineError
from fedsafe.federation.messages import (
    Upload,
    instruction_content,
    pack_parameters,
    read_instruction,
    read_upload,
    upload_message,
)
from fedsafe.params import Layout

LAYOUT = Layout(names=("w", "b"), shapes=((3, 5), (3,)))
RUN = "a" * 32


def vector(seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, LAYOUT.total).astype(np.float32)


def message(content):
    identify()
    return Message(content, dst_node_id=2, message_type="train", group_id="1")


def request(**more):
    return instruction_content(pack_parameters(vector(), LAYOUT), round=4, plan="p" * 64, **more)


def test_a_request_is_the_same_after_packing():
    packed = pack_request(request(announced={"clip": 0.5}), RUN)
    assert {key: type(value) for key, value in packed[PACKED].items()} == dict(KEYS)
    found = read_instruction(message(unpack_request(packed, LAYOUT)), LAYOUT)
    honest = read_instruction(message(request(announced={"clip": 0.5})), LAYOUT)
    assert found.parameters.tobytes() == honest.parameters.tobytes() == vector().tobytes()
    assert (found.round, found.plan, found.announced) == (4, "p" * 64, {"clip": 0.5})


def test_a_request_is_one_record():
    assert list(pack_request(request(), RUN)) == [PACKED]


@pytest.mark.parametrize("bytes_", [b"", bytes(4 * LAYOUT.total - 4), bytes(4 * LAYOUT.total + 4)])
def test_a_model_of_another_size_is_refused(bytes_):
    packed = pack_request(request(), RUN)
    packed[PACKED]["parameters"] = bytes_
    with pytest.raises(EngineError, match="has not the 72 bytes"):
        unpack_request(packed, LAYOUT)


def reply(content):
    return Message(content, reply_to=message(request()))


@pytest.mark.parametrize("values", [vector(), np.zeros(18, np.float32), np.full(18, np.nan, np.float32)])
def test_a_trained_model_is_the_same_to_the_last_bit(values):
    sent = upload_message(Upload(parameters=values, examples=7), message(request()))
    packed = pack_reply(sent.content)
    assert list(packed) == [PACKED]
    found = read_upload(unpack_reply(reply(packed), LAYOUT.total), LAYOUT)
    assert found is not None
    assert found.parameters.tobytes() == values.tobytes()
    assert found.examples == 7


def test_a_trained_model_takes_less_than_its_numbers():
    layout = Layout(names=("w",), shapes=((26_000,),))
    values = np.random.default_rng(1).normal(0, 0.1, layout.total).astype(np.float32)
    sent = upload_message(Upload(parameters=values, examples=7), message(request()))
    assert len(pack_reply(sent.content)[PACKED]["trained"]) < 0.9 * 4 * layout.total


def test_other_replies_stay_as_they_are():
    content = RecordDict(
        {"fold": ArrayRecord({"sum": Array(vector())}), "info": MetricRecord({"clients": 1})}
    )
    assert pack_reply(content) is content
    untouched = reply(content)
    assert unpack_reply(untouched, LAYOUT.total).content is content


@pytest.mark.parametrize(
    "record",
    [
        {"trained": b"nonsense", "examples": 3},
        {"trained": zlib.compress(bytes(4 * LAYOUT.total)), "examples": 0.5},
        {"trained": zlib.compress(bytes(4 * LAYOUT.total - 1)), "examples": 3},
        {"trained": zlib.compress(bytes(4 * LAYOUT.total + 1)), "examples": 3},
        {"trained": zlib.compress(bytes(4 * LAYOUT.total)) + b"more", "examples": 3},
        {"trained": zlib.compress(bytes(4 * LAYOUT.total))[:-1], "examples": 3},
        {"trained": "text", "examples": 3},
        {"examples": 3},
        {},
    ],
)
def test_a_reply_that_cannot_be_one_is_an_upload_that_whoever_reads_it_refuses(record):
    found = unpack_reply(reply(RecordDict({PACKED: ConfigRecord(record)})), LAYOUT.total)
    with pytest.raises(EngineError):
        read_upload(found, LAYOUT)


def test_a_reply_that_grows_is_not_opened_beyond_the_size_of_a_model():
    bomb = zlib.compress(bytes(2**27), 9)
    tracemalloc.start()
    unpack_reply(reply(RecordDict({PACKED: ConfigRecord({"trained": bomb, "examples": 3})})), LAYOUT.total)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**22
