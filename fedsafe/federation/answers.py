"""The replies to the messages of one phase: each counts once, and what one client sends wrongly is its own failure.

A simulation's worker is FedSafe itself, and may answer for many clients at once. A node of a federation is somebody
else: it answers for one client, whose number of records is public, with a fold that the rule can merge.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message

from fedsafe.aggregation import Fold
from fedsafe.errors import EngineError
from fedsafe.federation.messages import Reply, read_reply

# The difference of two models in single precision is smaller. What is larger could overflow once it is squared.
_LARGEST = 2.0**130


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a reply of one client for itself looks like; see :func:`require_expected`.

    Args:
        like: A fold of no client: its names, kinds and shapes.
        sizes: Number of records of each client, where the fold says it in ``examples``; None where it does not.
        numbers: Whether the fold says in ``clients`` whose rows it holds.
        announced: What the clients were told beside the model. A fold that names the same says the same.
    """

    like: Fold
    sizes: Sequence[int] | None = None
    numbers: bool = False
    announced: Mapping[str, float] = field(default_factory=dict)


class Answers:
    """The replies to the messages of one phase, and what they come to.

    The grid numbers messages when it sends them. Each may be answered once: a second answer to one message would
    count its clients twice.

    Args:
        sent: The messages.
        clients: Of each message, the client that it is for.
        folded: Gives the reply of a client that sent its trained model; None for a message of another kind.
        expected: What each reply is held to, where clients answer for themselves.
    """

    def __init__(
        self,
        sent: Sequence[Message],
        clients: Sequence[int],
        folded: Callable[[Message, int], Reply | None] = lambda message, client: None,
        expected: Expected | None = None,
    ) -> None:
        self._sent, self._clients, self._folded, self._expected = sent, clients, folded, expected
        self.replies, self.clients, self.cpu_seconds, self.error = 0, 0, 0.0, ""

    def first_of(self, replies: Iterable[Message]) -> Iterator[Reply]:
        """The first reply to each message, one after the other."""
        numbers = (message.metadata.message_id for message in self._sent)
        unanswered = dict(zip(numbers, self._clients, strict=True))
        for message in replies:
            answered = message.metadata.reply_to_message_id
            if message.has_error():
                self.error = self.error or message.error.reason or "an error without a reason"
            if message.has_error() or answered not in unanswered:
                continue
            client = unanswered.pop(answered)
            try:
                reply = self._folded(message, client) or read_reply(message)
                if reply is None:
                    continue
                if self._expected is not None:
                    require_expected(reply, client, self._expected)
            except EngineError as error:  # one client's nonsense is that client's failure
                self.error = self.error or str(error)
                continue
            self.replies += 1
            self.clients += reply.clients
            self.cpu_seconds += reply.cpu_seconds
            self.error = self.error or reply.error
            yield reply

    def withdraw(self, reply: Reply, error: Exception) -> None:
        """A reply that was given out, and could not be used after all, counts as a failure."""
        self.replies -= 1
        self.clients -= reply.clients
        self.error = self.error or f"a fold that cannot be merged ({type(error).__name__})"

    @property
    def by_themselves(self) -> bool:
        """Whether each client answers for itself."""
        return self._expected is not None


def require_expected(reply: Reply, client: int, expected: Expected) -> None:
    """Hold the reply of one client to what it can say.

    Args:
        reply: Of the client, who may send anything.
        client: Whom the message was for.
        expected: What it is held to.

    Raises:
        EngineError: It is for other clients, for another number of records, or no fold that could be merged.
    """
    counts = (reply.clients, reply.failures)
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) > 1:
        raise EngineError(
            f"a client answers for {reply.clients!r} clients and {reply.failures!r} failed ones"
        )
    seconds = reply.cpu_seconds
    if type(seconds) not in (int, float) or not math.isfinite(seconds) or not 0 <= seconds < _LARGEST:
        raise EngineError("a client says a processor time that is none")
    if not isinstance(reply.error, str):
        raise EngineError("a client says an error that is no text")
    arrays = reply.fold.arrays
    _require_like(arrays, expected.like.arrays)
    if "examples" in arrays and expected.sizes is not None:
        records = expected.sizes[client] if reply.clients else 0
        if arrays["examples"].sum() != records:
            raise EngineError(f"a client says another number of records than the {records} of the plan")
    if expected.numbers and arrays["clients"].tolist() != [client] * reply.clients:
        raise EngineError("a client sends rows of another client, or several")
    for name in expected.announced.keys() & arrays.keys():
        if reply.clients and not np.all(arrays[name] == expected.announced[name]):
            raise EngineError(f"a client folded with another {name} than was announced")


def _require_like(arrays: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> None:
    """Names, kinds of numbers and shapes of a fold of nothing; rows may be there where it has none."""
    if like and arrays.keys() != like.keys():
        raise EngineError("a client sends a fold of other arrays than the rule's")
    rows = {len(arrays[name]) if arrays[name].ndim else -1 for name in like if like[name].shape[:1] == (0,)}
    if len(rows) > 1:
        raise EngineError("a client sends a fold of arrays with different numbers of rows")
    for name, found in arrays.items():
        due = like.get(name, found)
        same = found.shape[1:] == due.shape[1:] if due.shape[:1] == (0,) else found.shape == due.shape
        if not same or found.ndim != due.ndim or found.dtype.kind != due.dtype.kind or found.itemsize > 8:
            raise EngineError(
                f"a client sends {found.dtype} of the shape {found.shape} as the fold's {name[:40]!r}, which is "
                f"{due.dtype} of {due.shape}"
            )
        # NaN compares as false.
        if found.dtype.kind == "f" and not np.all(np.abs(found) < _LARGEST):
            raise EngineError(
                f"a client sends values that are not finite, or too large, as the fold's {name[:40]!r}"
            )
