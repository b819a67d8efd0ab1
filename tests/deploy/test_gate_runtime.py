"""The gate at the runtime interface of a real SuperNode, whose link to a server is a hand that puts messages in."""

import threading
import time

import numpy as np
import pytest
import uvicorn
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from hospitals import Hospital, composed, fold, refused

from fedsafe.apps.joining import JOINED
from fedsafe.apps.nodes import EXPERIMENT, JOIN, RUN
from fedsafe.deploy.bundle import bundle_digest
from fedsafe.deploy.runtime import SuperNode, require_small
from fedsafe.deploy.serving import step
from fedsafe.engine.grid import identify
from fedsafe.errors import EngineError
from fedsafe.federation.messages import instruction_content, pack_parameters

SECRET = b"s" * 32


class Node:
    """A SuperNode's state and interface: what a server sends is put in, what would be sent to it is taken out."""

    def __init__(self):
        self.state = NodeStateFactory(objectstore_factory=ObjectStoreFactory()).state()
        self.state.set_node_id(2)
        factory = type("Factory", (), {"state": lambda _: self.state})()
        self.server = uvicorn.Server(
            uvicorn.Config(create_app(factory, SECRET), port=0, log_level="error", ws="none")
        )
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.address = f"127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def close(self):
        self.server.should_exit = True
        self.thread.join()

    def put(self, message, fab, objects=None):
        """A message of a server, as the SuperNode stores it."""
        if self.state.get_run(1) is None:
            run = Run.create_empty(1)
            run.fab_hash = bundle_digest(fab)
            self.state.store_run(run)
            self.state.store_fab(Fab(run.fab_hash, fab, {}))
            context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})
            self.state.set_run_series_context(run.series_id, context)
        self.state.create_task(task_type=TaskType.CLIENT_APP, run_id=1, fab_hash=bundle_digest(fab))
        message.metadata.__dict__["_message_id"] = message.object_id
        store = self.state.object_store
        store.preregister(1, get_object_tree(message))
        for number, content in get_all_nested_objects(message).items():
            store.put(number, content.deflate())
        self.state.store_message(message)

    def taken(self):
        """What the SuperNode would send now: every byte that the gate handed over."""
        replies = []
        for message in self.state.get_messages_legacy(is_reply=True):
            store = self.state.object_store
            tree = store.get_object_tree(message.metadata.message_id)
            numbers = [inner.object_id for inner in _walk(tree)]
            contents = {number: store.get(number) for number in numbers}
            replies.append(inflate_object_from_contents(tree.object_id, contents))
        return replies


def _walk(tree):
    for child in tree.children:
        yield from _walk(child)
    yield tree


@pytest.fixture(scope="module")
def node():
    made = Node()
    yield made
    made.close()


@pytest.fixture
def hospital(tmp_path):
    made = Hospital(tmp_path / "north")
    yield made
    made.gate.close()


@pytest.fixture
def supernode(node):
    made = SuperNode(node.address, SECRET, most_bytes=10**6)
    yield made
    made.close()


def message(hospital, kind="train", round=1, change=lambda content: None):
    identify()
    parts, plan = composed(hospital.text)
    content = RecordDict()
    if kind == "train":
        arrays = pack_parameters(parts.initial, parts.layout)
        content = RecordDict(dict(instruction_content(arrays, round=round, plan=plan.hash)))
    content[EXPERIMENT] = ConfigRecord({"config": hospital.text, "folders": [], RUN: hospital.run})
    change(content)
    return Message(content, dst_node_id=2, message_type=kind, group_id="1")


def test_a_round_through_a_supernode(node, hospital, supernode):
    assert not step(hospital.gate, supernode), "there is nothing to do"
    node.put(message(hospital, JOIN), hospital.fab)
    assert step(hospital.gate, supernode)
    (joined,) = node.taken()
    assert joined.content.config_records[JOINED]["client"] == 0
    node.put(message(hospital), hospital.fab)
    assert step(hospital.gate, supernode)
    (reply,) = node.taken()
    assert fold(reply)
    node.put(message(hospital), hospital.fab)
    assert step(hospital.gate, supernode)
    (again,) = node.taken()
    assert again.content.object_id == reply.content.object_id


def test_of_a_refusal_the_supernode_gets_the_reason_and_not_a_byte_more(node, hospital, supernode):
    hospital.allow(budget__record__epsilon=0.1)
    hospital.restart()
    before = len(node.state.object_store)
    node.put(message(hospital), hospital.fab)
    assert step(hospital.gate, supernode)
    (reply,) = node.taken()
    assert refused(reply) == "budget_spent"
    assert not reply.has_content()
    assert len(node.state.object_store) == before + 1, "one object: the error itself"
    assert "release" not in hospital.kinds()


def test_a_message_that_is_too_large_is_refused_before_it_is_put_together(node, hospital):
    small = SuperNode(node.address, SECRET, most_bytes=10_000)

    def grow(content):
        content["arrays"] = ArrayRecord({"weight": Array(np.zeros(10_000, np.float32))})

    node.put(message(hospital, change=grow), hospital.fab)
    assert step(hospital.gate, small)
    (reply,) = node.taken()
    assert refused(reply) == "message_not_understood"
    assert "more than 10000 bytes" in hospital.details()
    small.close()


def test_an_array_that_repeats_its_pieces_is_small_on_the_way_only():
    array = Array(np.zeros(1000, np.float32))
    contents = {number: piece.deflate() for number, piece in get_all_nested_objects(array).items()}
    require_small(contents, 5000)
    number = array.object_id
    bomb = contents[number].replace(b'"arraychunk_ids": [0]', b'"arraychunk_ids": [' + b"0, " * 99 + b"0]")
    assert bomb != contents[number]
    with pytest.raises(ValueError, match="more than 5000 bytes"):
        require_small({**contents, number: bomb}, 5000)


def test_without_the_secret_there_is_no_work(node, hospital):
    node.put(message(hospital, JOIN), hospital.fab)
    other = SuperNode(node.address, b"x" * 32, most_bytes=10**6)
    assert other.next() is None
    assert "401" in other.problem
    other.close()
    own = SuperNode(node.address, SECRET, most_bytes=10**6)
    assert step(hospital.gate, own)
    assert len(node.taken()) == 1
    own.close()


def test_a_supernode_that_is_not_there_is_waited_for():
    away = SuperNode("127.0.0.1:9", SECRET, most_bytes=10)
    assert away.next() is None
    assert "127.0.0.1:9 gives no work: ConnectError" in away.problem
    away.close()


@pytest.mark.parametrize("address", ["10.0.0.1:9094", "0.0.0.0:9094", "example.org:1"])
def test_only_a_supernode_of_this_machine(address):
    with pytest.raises(EngineError, match="must be on this machine"):
        SuperNode(address, SECRET, most_bytes=10)


def test_an_answer_leaves_at_a_multiple(node, hospital, supernode):
    hospital.allow(timing__answer_multiple=0.7)
    hospital.restart().join()
    node.put(message(hospital), hospital.fab)
    began = time.monotonic()
    assert step(hospital.gate, supernode)
    assert time.monotonic() - began >= 0.7
    assert len(node.taken()) == 1


def test_one_gate_for_one_client(tmp_path):
    from fedsafe.deploy.serving import _alone
    from fedsafe.errors import LedgerError

    with (
        _alone(tmp_path / "state"),
        pytest.raises(LedgerError, match="in use by another gate"),
        _alone(tmp_path / "state"),
    ):
        pass
