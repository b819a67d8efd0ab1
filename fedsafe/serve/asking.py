"""One request for decisions: read, held to the limits and the schema, answered. Every refusal has its own status."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from numpy.typing import NDArray
from starlette.types import Receive, Scope

from fedsafe.errors import DataError, RecordError
from fedsafe.serve.batching import Asked, Batcher, Overloaded, joined
from fedsafe.serve.decision import Decision
from fedsafe.serve.explaining import STEPS
from fedsafe.serve.instances import Instances, WrongInstance
from fedsafe.serve.limits import Limits, Rates
from fedsafe.serve.pipeline import Guard
from fedsafe.serve.strict_json import parse

_LONG = 1 << 16
_BYTES = 1 << 10
"""Of a body that count as one instance."""
_BRACES = 16
"""Objects in the place of one instance: more are not even read."""
JSON: Final = (b"content-type", b"application/json")


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: Of HTTP.
        code: For programs.
        message: For people: what is wrong, and what to do.
        problems: Of single instances.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        problems: Sequence[dict[str, Any]] = (),
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, tuple(headers)
        self.read = False
        """Whether the whole body was read."""
        self._error = {"code": code, "message": message, **({"problems": list(problems)} if problems else {})}

    @property
    def body(self) -> bytes:
        """JSON of the answer."""
        return json.dumps({"error": self._error}).encode()


class Asking:
    """Answers requests for decisions.

    Args:
        guard: That decides.
        limits: Of requests.
        linger: See `Batcher`.
    """

    def __init__(self, guard: Guard, limits: Limits, *, linger: float = 0.002) -> None:
        self._guard, self._limits = guard, limits
        self.instances = Instances(guard.task.schema)
        self._rates = Rates(limits.rate)
        self._held: Counter[str] = Counter()
        self.batcher = Batcher(self._decide, batch=limits.batch, queue=limits.queue, linger=linger)

    async def answer(self, scope: Scope, receive: Receive, caller: str, *, explain: bool) -> bytes:
        """JSON of the decisions.

        Args:
            scope: Of the request.
            receive: Its body.
            caller: Who asks.
            explain: Whether explanations are wanted.

        Raises:
            Refused: The request is not answered, and why.
        """
        if self.batcher.full(caller):
            raise _overloaded()  # before anything is read: to refuse must cost little
        _said_to_be_json(scope)
        said = _said_length(scope)
        if said > self._limits.body:
            raise _too_long(self._limits.body)
        # To read junk is work, too: what a body costs is known before it is read, or at least before it is parsed.
        paid = 1 + said // _BYTES
        self._take(caller, paid)
        body = await self._body(receive, caller)
        try:
            long = max(0, 1 + len(body) // _BYTES - paid)
            self._take(caller, long)
            paid += long
            # What takes long must not keep the others from being heard.
            read = asyncio.to_thread if len(body) > _LONG else _at_once
            x = await read(self._encoded, body, explain)
            asked = Asked(x, caller, STEPS if explain else 1)
            if asked.work > self._limits.rate:
                raise _never(asked.work, self._limits.rate)
            self._take(caller, max(0, asked.work - paid))
        except Refused as refused:
            refused.read = True
            raise
        finally:
            self._release(caller, len(body))
        return await self._answered(asked)

    async def _answered(self, asked: Asked) -> bytes:
        try:
            answered: bytes = await self.batcher.answer(asked)
        except Overloaded:
            refused = _overloaded()
        except DataError as error:
            refused = Refused(422, "wrong_instance", str(error))
        except RecordError:
            # Its text names a file of the machine.
            text = "the log of decisions cannot be written, and nothing is decided without it"
            refused = Refused(503, "no_log", text)
        else:
            return answered
        refused.read = True
        raise refused

    def _decide(self, asked: Sequence[Asked]) -> list[Any]:
        """In the batcher's thread: the JSON for each request, or its error."""
        answers: list[Any] = [None] * len(asked)
        groups: dict[tuple[str, bool], list[int]] = {}
        for at, each in enumerate(asked):
            groups.setdefault((each.caller, each.passes > 1), []).append(at)
        for (caller, explain), members in groups.items():
            try:
                rows = joined([asked[at] for at in members])
                decisions = self._guard.predict(rows, caller, explain=explain)
            except Exception as error:  # one caller's trouble is no other's
                for at in members:
                    answers[at] = error
                continue
            start = 0
            for at in members:
                stop = start + len(asked[at].x)
                answers[at] = _decisions_json(decisions[start:stop])
                start = stop
        return answers

    def _take(self, caller: str, cost: int) -> None:
        seconds = self._rates.wait(caller, min(cost, int(self._limits.rate))) if cost else 0.0
        if seconds:
            message = f"more than {self._limits.rate:g} instances in a second are asked for; ask again later"
            raise _later(seconds, "rate", message)

    def _encoded(self, body: bytes, explain: bool) -> NDArray[Any]:
        try:
            return self.instances.encode(self._parsed(body, explain))
        except WrongInstance as error:
            problems = [problem.to_json() for problem in error.problems]
            raise Refused(422, "wrong_instance", str(error), problems=problems) from None

    def _parsed(self, body: bytes, explain: bool) -> list[Any]:
        most = self._limits.explained if explain else self._limits.batch
        if body.count(b"{") > _BRACES * (most + 1):
            raise Refused(422, "batch", f"the body has far more objects than {most} instances: ask in parts")
        try:
            content = parse(body)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
            raise Refused(400, "wrong_json", f"the body is no JSON: {reason}") from None
        if not isinstance(content, dict) or "instances" not in content:
            raise Refused(
                422, "wrong_body", 'the body is no object with "instances": give {"instances": [...]}'
            )
        if len(content) > 1:
            strange = next(key for key in content if key != "instances")
            raise Refused(
                422, "wrong_body", f'the body has {strange[:60]!r} beside "instances"; leave it out'
            )
        instances = content["instances"]
        if not isinstance(instances, list) or not instances:
            raise Refused(422, "wrong_body", '"instances" is no list of one or more instances')
        if len(instances) > most:
            raise Refused(
                422, "batch", f"{len(instances)} instances are more than {most} in a request: ask in parts"
            )
        return instances

    async def _body(self, receive: Receive, caller: str) -> bytes:
        """The body, whose bytes are held until whoever asked for it gives them back."""
        most = self._limits.body
        parts: list[bytes] = []
        size, whole = 0, False
        try:
            async with asyncio.timeout(self._limits.seconds):
                while not whole:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "gone", "the body ended early")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    self._held[caller] += len(parts[-1])
                    if size > most:
                        raise _too_long(most)
                    held, own = self._limits.held, self._held[caller]
                    # One caller's slow bodies leave room for those of others.
                    if own > max(most, held // 2) or self._held.total() > held:
                        raise _overloaded()
                    whole = not message.get("more_body", False)
        except TimeoutError:
            close = ((b"connection", b"close"),)
            text = f"the body took more than {self._limits.seconds:g} seconds"
            raise Refused(408, "slow", text, headers=close) from None
        finally:
            if not whole:
                self._release(caller, size)
        return b"".join(parts)

    def _release(self, caller: str, size: int) -> None:
        self._held[caller] -= size
        if not self._held[caller]:
            del self._held[caller]


async def _at_once(
    function: Callable[[bytes, bool], NDArray[Any]], body: bytes, explain: bool
) -> NDArray[Any]:
    return function(body, explain)


def _decisions_json(decisions: Sequence[Decision]) -> bytes:
    return json.dumps(
        {"decisions": [decision.to_json() for decision in decisions]}, separators=(",", ":"), allow_nan=False
    ).encode()


def _said_length(scope: Scope) -> int:
    """Bytes of the body, where the head says how many; 0 where it does not."""
    said = b"0"
    for name, value in scope["headers"]:
        if name == b"content-length":
            said = value
    return int(said[:20]) if said.isdigit() else 0


def _said_to_be_json(scope: Scope) -> None:
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value.split(b";")[0].strip().lower()
            if kind == b"application/json":
                return
            break
    raise Refused(415, "content_type", "say that the content is JSON: Content-Type: application/json")


def _too_long(most: int) -> Refused:
    # What is left of the body is not read.
    close = ((b"connection", b"close"),)
    return Refused(413, "too_long", f"the body is longer than {most:,} bytes: ask in parts", headers=close)


def _never(work: int, rate: float) -> Refused:
    text = f"this costs {work:,} instances, and only {rate:g} may be asked for in a second: ask for fewer explanations"
    return Refused(422, "rate", text)


def _overloaded() -> Refused:
    return _later(1.0, "overloaded", "more is asked than can be answered; ask again later")


def _later(seconds: float, code: str, message: str) -> Refused:
    return Refused(429, code, message, headers=((b"retry-after", str(max(1, -int(-seconds // 1))).encode()),))
