"""Packed messages: what is put in comes out, and nothing of a client's is opened that is larger than a model."""

import tracemalloc
import zlib

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedsafe.aggregation import Fold
from fedsafe.apps.packing import (
    KEYS,
    PACKED,
    pack_reply,
    pack_request,
    pack_stage,
    unpack_reply,
    unpack_request,
)
from fedsafe.engine.grid import identify
from fedsafe.errors import EngineError
from fedsafe.federation.messages import (
    Reply,
    Upload,
    instruction_content,
    pack_parameters,
    read_instruction,
    read_reply,
    read_upload,
    reply_message,
    upload_message,
)
from fedsafe.federation.secure_messages import (
    SECURE,
    StageRequest,
    read_stage,
    read_stage_reply,
    with_stage,
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
    assert len(pack_reply(sent.content)[PACKED]["data trained"]) < 0.9 * 4 * layout.total


@pytest.mark.parametrize(
    "arrays",
    [
        {"whole": np.arange(18), "fraction": np.arange(18) * -(2**40), "examples": np.array([7])},
        {"rows": np.random.default_rng(2).normal(size=(1, 18)), "nothing": np.zeros((0, 18))},
        {},
    ],
)
def test_a_fold_is_the_same_to_the_last_bit(arrays):
    whole = Reply(fold=Fold(arrays=arrays), clients=1, failures=0, error="", cpu_seconds=0.0)
    packed = pack_reply(reply_message(whole, message(request())).content)
    assert list(packed) == [PACKED]
    found = read_reply(unpack_reply(reply(packed), LAYOUT.total))
    assert (found.clients, found.failures, found.error, found.cpu_seconds) == (1, 0, "", 0.0)
    assert set(found.fold.arrays) == set(arrays)
    for name, value in arrays.items():
        assert found.fold.arrays[name].tobytes() == value.tobytes()
        assert (found.fold.arrays[name].shape, found.fold.arrays[name].dtype) == (value.shape, value.dtype)


def test_a_failure_is_told_as_it_is():
    whole = Reply(fold=Fold(arrays={}), clients=0, failures=1, error="training failed", cpu_seconds=0.0)
    packed = pack_reply(reply_message(whole, message(request())).content)
    found = read_reply(unpack_reply(reply(packed), LAYOUT.total))
    assert (found.failures, found.error) == (1, "training failed")


def test_other_replies_stay_as_they_are():
    content = RecordDict(
        {"fold": ArrayRecord({"sum": Array(vector())}), "info": MetricRecord({"clients": 1})}
    )
    assert pack_reply(content) is content
    untouched = reply(content)
    assert unpack_reply(untouched, LAYOUT.total).content is content


WHOLE = zlib.compress(bytes(4 * LAYOUT.total))


@pytest.mark.parametrize(
    "record",
    [
        {"data trained": b"nonsense"},
        {"data trained": zlib.compress(bytes(4 * LAYOUT.total - 1))},
        {"data trained": zlib.compress(bytes(4 * LAYOUT.total + 1))},
        {"data trained": WHOLE + b"more"},
        {"data trained": WHOLE[:-1]},
        {"data trained": "text"},
        {"form trained": "<f4 -18"},
        {"form trained": "|O 18"},
        {"form trained": "<f4 18 1 1 1 1"},
        {"form trained": "<f4 " + "9" * 30},
        {"form trained": b"<f4 18"},
        {"form trained": ""},
        {"examples": None},
        {"examples": "many"},
        {"clients": 1},
        {"text": "", "examples": None},
    ],
)
def test_a_reply_that_cannot_be_one_is_an_error(record):
    honest = {"data trained": WHOLE, "form trained": "<f4 18", "examples": 3}
    values = {key: value for key, value in {**honest, **record}.items() if value is not None}
    found = unpack_reply(reply(RecordDict({PACKED: ConfigRecord(values)})), LAYOUT.total)
    assert found.has_error()
    assert not found.has_content()
    assert read_upload(found, LAYOUT) is read_reply(found) is None


@pytest.mark.parametrize("record", [ArrayRecord({"a": Array(vector())}), MetricRecord({"a": 1})])
def test_a_record_of_another_type_is_an_error(record):
    assert unpack_reply(reply(RecordDict({PACKED: record})), LAYOUT.total).has_error()


@pytest.mark.parametrize("form", [f"<f4 {2**25}", "<f4 18"])
def test_a_reply_that_grows_is_not_opened_beyond_what_a_model_may_have(form):
    bomb = zlib.compress(bytes(2**27), 9)
    record = ConfigRecord({"data trained": bomb, "form trained": form, "examples": 3})
    tracemalloc.start()
    found = unpack_reply(reply(RecordDict({PACKED: record})), LAYOUT.total)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.has_error()
    assert most < 2**22


def stage(name, content):
    asked = StageRequest(stage=name, round=4, plan="p" * 64, inputs=bytes(32), said=b"said")
    return asked, with_stage(content, asked)


def test_a_stage_of_secure_aggregation_goes_beside_the_packed_record_with_a_model_or_without():
    asked, content = stage("share", RecordDict())
    packed = pack_request(content, RUN)
    assert dict(packed[PACKED]) == {"run": RUN}
    assert read_stage(message(packed)) == asked
    asked, content = stage("mask", request())
    packed = pack_request(content, RUN)
    assert set(packed) == {PACKED, SECURE}
    assert set(packed[PACKED]) == set(KEYS)
    found = unpack_request(packed, LAYOUT)
    assert read_instruction(message(found), LAYOUT).parameters.tobytes() == vector().tobytes()
    assert read_stage(message(found)) == asked


def test_what_a_gate_says_at_a_stage_is_the_same_after_packing():
    found = read_stage_reply(unpack_reply(reply(pack_stage(5, b"masked")), LAYOUT.total))
    assert found is not None
    assert (dict(found.said), found.failures) == ({5: b"masked"}, 0)
    ended = read_stage_reply(unpack_reply(reply(pack_stage(5, b"")), LAYOUT.total))
    assert ended is not None
    assert not ended.said


@pytest.mark.parametrize(
    "nonsense", [{"client": "5", "said": b""}, {"client": -1, "said": b"x"}, {"client": 1, "said": "x"}]
)
def test_nonsense_at_a_stage_is_that_clients_error(nonsense):
    assert unpack_reply(reply(RecordDict({PACKED: ConfigRecord(nonsense)})), LAYOUT.total).has_error()
