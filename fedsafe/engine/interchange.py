"""What goes to a worker and comes back: a chunk's messages and contexts, without what all chunks share."""

import io
import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, Context, Message

from fedsafe.engine.grid import ClientApps, deliver, new_context

# Contexts of nodes as bytes; a node that kept nothing has none.
States = dict[int, bytes]


def shared_arrays(messages: Sequence[Message]) -> tuple[dict[int, ArrayRecord], dict[int, int]]:
    """Array records that several messages carry, and a token for each by identity."""
    contents = {id(message.content): message.content for message in messages if message.has_content()}
    carried = Counter(id(message.content) for message in messages if message.has_content())
    counts: Counter[int] = Counter()
    by_identity: dict[int, ArrayRecord] = {}
    for identity, content in contents.items():
        for record in content.values():
            if type(record) is ArrayRecord:
                by_identity[id(record)] = record
                counts[id(record)] += carried[identity]
    shared = [identity for identity, count in counts.items() if count > 1]
    tokens = {identity: token for token, identity in enumerate(shared)}
    return {tokens[identity]: by_identity[identity] for identity in shared}, tokens


def size_of(shared: Mapping[int, ArrayRecord]) -> int:
    """Bytes of the values."""
    return sum(len(array.data) for record in shared.values() for array in record.values())


def packed(value: object, tokens: Mapping[int, int]) -> bytes:
    """Pickled, with a token in place of each shared array record."""
    file = io.BytesIO()
    _Pickler(file, tokens).dump(value)
    return file.getvalue()


class ChunkRunner:
    """Runs chunks in a worker.

    Args:
        apps: What to run.
        clients: How many nodes there are.
        node_config: Further entries of every node's configuration.
        run_config: The configuration of the run.
    """

    def __init__(
        self,
        apps: ClientApps,
        clients: int,
        node_config: Mapping[str, Any],
        run_config: Mapping[str, Any],
    ) -> None:
        self.apps = apps
        self._new = (clients, node_config, run_config)

    def __call__(self, shared: Mapping[int, ArrayRecord], chunk: bytes) -> tuple[list[Message], States]:
        """Replies, and the contexts in which an app has kept something."""
        messages, states = _Unpickler(io.BytesIO(chunk), shared).load()
        if self.apps.batch is not None:
            return deliver(self.apps, messages, [self._fresh(message) for message in messages]), {}
        # One context for each node, also where it has two messages in this chunk.
        contexts: dict[int, Context] = {}
        for message in messages:
            node = message.metadata.dst_node_id
            if node not in contexts:
                contexts[node] = pickle.loads(states[node]) if node in states else self._fresh(message)  # noqa: S301
        replies = deliver(self.apps, messages, [contexts[m.metadata.dst_node_id] for m in messages])
        return replies, {
            node: pickle.dumps(context, protocol=5)
            for node, context in contexts.items()
            if node in states or not self._untouched(context)
        }

    def _fresh(self, message: Message) -> Context:
        return new_context(message.metadata.dst_node_id, *self._new)

    def _untouched(self, context: Context) -> bool:
        if len(context.state):
            return False
        fresh = new_context(context.node_id, *self._new)
        return context.node_config == fresh.node_config and context.run_config == fresh.run_config


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, tokens: Mapping[int, int]) -> None:
        super().__init__(file, protocol=5)
        self._tokens = tokens

    def persistent_id(self, value: object) -> int | None:
        return self._tokens.get(id(value)) if type(value) is ArrayRecord else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: Mapping[int, ArrayRecord]) -> None:
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, token: int) -> ArrayRecord:
        return self._shared[token]
