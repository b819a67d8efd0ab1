"""The gate's side of a SuperNode: tasks with their messages in, one reply for each out.

A SuperNode that runs with ``--isolation process`` hands its tasks to whoever asks at its runtime interface with the
shared secret. Whatever it hands over came from the server: sizes are bounded before anything is put together from it.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import httpx
from flwr.app import Array, Context, Message
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, fab_from_proto, message_from_proto, run_from_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
)
from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest as Heartbeat
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_children_ids_from_object_content,
    get_object_type_from_object_content,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime.run_clientapp import push_message, push_task_output

from fedsafe.errors import EngineError

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_HEARTBEAT_SECONDS = 15.0
# Objects of a message: a model has a few for each of its parameters' tensors.
_MOST_OBJECTS = 20_000


@dataclass(frozen=True, kw_only=True)
class Work:
    """One message of a server, and what Flower would run for it.

    Args:
        message: The message; without content where ``problem`` says why.
        context: Of the node in this run.
        fab: The bundle's bytes, not unpacked.
        problem: Why the content could not be put together; None where it could.
        token: Of the SuperNode, for the reply.
    """

    message: Message
    context: Context
    fab: bytes
    problem: str | None = None
    token: str = field(default="", repr=False)


class Runtime(Protocol):
    """Where a gate's work comes from. `SuperNode` is the real one."""

    def next(self) -> Work | None:
        """The next task, or None where there is none now."""
        ...

    def reply(self, work: Work, reply: Message) -> None:
        """Hand a reply over."""
        ...

    def busy(self, work: Work) -> Any:
        """A context in which the task is kept alive."""
        ...


class SuperNode:
    """The runtime interface of a SuperNode on this machine.

    Args:
        address: ``host:port``, of a loopback address: the interface speaks plain HTTP.
        secret: That gate and SuperNode share.
        most_bytes: That a message may have.

    Attributes:
        problem: Why there is no work, if that is not for lack of it.

    Raises:
        EngineError: The address is not of this machine.
    """

    def __init__(self, address: str, secret: bytes, *, most_bytes: int) -> None:
        host = address.rpartition(":")[0].strip("[]")
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise EngineError(
                f"the SuperNode's runtime interface is at {address!r}: it must be on this machine (127.0.0.1), since "
                "whoever reaches it may answer for this client"
            )
        self._address, self._most = address, most_bytes
        self.problem = ""
        signed = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE})
        self._client = self._connect(signed)

    def next(self) -> Work | None:
        """The next task, or None where there is none, or the SuperNode is not there."""
        try:
            found = self._client.AcquireTask(
                AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP.value])
            )
            self.problem = ""
            if not found.HasField("task") or not found.token:
                return None
            return self._pull(found.token)
        except httpx.HTTPError as error:
            self.problem = f"the SuperNode at {self._address} gives no work: {type(error).__name__}: {error}"
            return None

    def reply(self, work: Work, reply: Message) -> None:
        """Hand a reply over.

        Raises:
            EngineError: The SuperNode did not take it.
        """
        client = self._connect(RuntimeTokenHttpInterceptor(work.token))
        try:
            push_message(client, reply, work.context)
            # No context goes back: what this client remembers is in its own ledger.
            push_task_output(client, None, SubStatus.COMPLETED, "")
        except (httpx.HTTPError, OSError, RuntimeError) as error:
            raise EngineError(f"the SuperNode did not take the reply: {type(error).__name__}") from error
        finally:
            client.close()

    @contextmanager
    def busy(self, work: Work) -> Iterator[None]:
        """Tell the SuperNode now and then that its task is in hand."""
        client, done = self._connect(RuntimeTokenHttpInterceptor(work.token)), threading.Event()

        def beat() -> None:
            while not done.is_set():
                try:
                    client.SendTaskHeartbeat(Heartbeat())
                except httpx.HTTPError:
                    done.wait(1.0)  # it may be restarting; the reply is stored whatever becomes of it
                    continue
                done.wait(_HEARTBEAT_SECONDS)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            client.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _connect(self, *interceptors: Any) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="fedsafe-gate"), *interceptors],
        )

    def _pull(self, token: str) -> Work | None:
        client = self._connect(RuntimeTokenHttpInterceptor(token))
        try:
            given = client.PullTaskInput(PullTaskInputRequest())
            context, run = context_from_proto(given.context), run_from_proto(given.run)
            # Messages take from here who makes them.
            TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, run.run_id
            TaskIdentity.node_id = context.node_id
            pulled = client.PullMessages(PullAppMessagesRequest())
            if not pulled.messages_list:
                push_task_output(client, None, SubStatus.FAILED, "no message")
                return None
            message, problem = message_from_proto(pulled.messages_list[0]), None
            tree = pulled.message_object_trees[0]
            try:
                message = self._inflated(client, tree, context)
            except (ValueError, TypeError, KeyError, IndexError, RecursionError, ObjectPullError) as error:
                problem = f"{type(error).__name__}: {error}"
            message.metadata.__dict__["_message_id"] = tree.object_id
            return Work(
                message=message,
                context=context,
                fab=fab_from_proto(given.fab).content,
                problem=problem,
                token=token,
            )
        finally:
            client.close()

    def _inflated(self, client: RuntimeHttpClient, tree: ObjectTree, context: Context) -> Message:
        node, run = Node(node_id=context.node_id), context.run_id
        pull = make_pull_object_fn_protobuf(client.PullObject, node, run)
        numbers = _objects_of(tree)
        left = self._most

        def bounded(number: str) -> bytes:
            nonlocal left
            content: bytes = pull(number)
            left -= len(content)
            if left < 0:
                raise ValueError(f"the message has more than {self._most} bytes")
            return content

        contents = pull_objects(numbers, bounded, max_concurrent_pulls=1)
        confirm = make_confirm_message_received_fn_protobuf(client.ConfirmMessageReceived, node, run)
        confirm(tree.object_id)
        require_small(contents, self._most)
        return cast("Message", inflate_object_from_contents(tree.object_id, contents))


def _objects_of(tree: ObjectTree) -> list[str]:
    numbers: list[str] = []
    for inner in iterate_object_tree(tree):
        numbers.append(inner.object_id)
        if len(numbers) > _MOST_OBJECTS:
            raise ValueError(f"the message has more than {_MOST_OBJECTS} objects")
    return numbers


def require_small(contents: Mapping[str, bytes], most: int) -> None:
    """Refuse arrays that are small on the way and large when put together: an array lists its pieces, with repetition.

    Args:
        contents: The objects of a message as Flower sends them.
        most: Bytes that all arrays may have together.

    Raises:
        ValueError: They have more.
    """
    total = 0
    for content in contents.values():
        if get_object_type_from_object_content(content) != Array.__qualname__:
            continue
        pieces = get_object_children_ids_from_object_content(content)
        body = json.loads(get_object_body(content, Array).decode())
        total += sum(len(contents[pieces[place]]) for place in body["arraychunk_ids"])
        if total > most:
            raise ValueError(f"the arrays of the message have more than {most} bytes")
