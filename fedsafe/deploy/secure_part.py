"""A client's part in one secure sum, each stage of which is answered once and may be asked for again.

A server that was cut off, or a message that was lost, makes the same request come twice: it gets the same bytes.
Another request for a stage that was answered is a second session of the round, by which a server could learn the
difference of two sums: it is refused, whatever the server says happened.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fedsafe.aggregation.secure import (
    KeptRound,
    RoundId,
    SecureClient,
    SecureParameters,
    SigningKey,
    VerifyingKey,
    require_stage,
)
from fedsafe.errors import SecureAggregationError
from fedsafe.federation.secure_messages import TRAINS, StageRequest
from fedsafe.privacy.mechanisms import Grid

_SEED_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer.

    Args:
        words: Of the protocol.
        again: Whether they were said before.
    """

    words: bytes
    again: bool


@dataclass(frozen=True, kw_only=True)
class SecurePart:
    """What a client needs in the secure sums of one run.

    Args:
        folder: Of the rounds' states, for its owner alone.
        client: Its number.
        signing_key: Its own.
        pinned: The keys of all clients, by number.
        parameters: Of the sums.
        run: Name of the run.
    """

    folder: Path
    client: int
    signing_key: SigningKey
    pinned: Mapping[int, VerifyingKey]
    parameters: SecureParameters
    run: str

    def answer(self, asked: StageRequest, values: Callable[[], Grid]) -> Said:
        """The answer to one stage, on the disk before it is given.

        Args:
            asked: What the server sent.
            values: Trains, and gives what is to be masked; called once in a round, after everything was checked.

        Raises:
            RoundAborted: The server says that the round has ended and that nothing was unmasked.
            SecureAggregationError: What was sent breaks the protocol, or asks for a second session of the round.
        """
        # The release is charged by the name of a stage: nothing is answered that has another content than its name.
        require_stage(asked.stage, asked.said)
        values = values if asked.stage == TRAINS else _none
        round = RoundId(run=self.run, round=asked.round, plan=asked.plan.encode() + asked.inputs)
        wanted = _digest(asked)
        if asked.stage == "advertise":
            client = SecureClient(**self._own(round, values), seed=secrets.token_bytes(_SEED_BYTES))
            first = client.advertise()
            begun = _Kept(state=client.state(), answers={"advertise": (wanted, first)})
            with suppress(SecureAggregationError):  # it has taken part before: what it said then counts
                KeptRound.begin(self.folder, self.client, round, begun.encode())
                return Said(words=first, again=False)
        file, found = KeptRound.resume(self.folder, self.client, round)
        kept = _Kept.decode(found)
        if asked.stage in kept.answers:
            before, words = kept.answers[asked.stage]
            if before != wanted:
                raise SecureAggregationError(
                    f"{asked.stage!r} of round {asked.round} was answered, and is asked for with other words: a second "
                    "sum over other clients could show what this one sent, so it does not take part again"
                )
            return Said(words=words, again=True)
        if asked.stage == "advertise":
            raise SecureAggregationError(f"round {asked.round} was begun here, and this is not how it was")
        client = SecureClient.restore(kept.state, **self._own(round, values))
        try:
            words = client.handle(asked.said)
        except BaseException:
            # What is over stays over, also where training failed.
            if client.finished:
                file.keep(_Kept(state=client.state(), answers=kept.answers).encode())
            raise
        answers = {**kept.answers, asked.stage: (wanted, words)}
        file.keep(_Kept(state=client.state(), answers=answers).encode())
        return Said(words=words, again=False)

    def _own(self, round: RoundId, values: Callable[[], Grid]) -> dict[str, Any]:
        return {
            "client": self.client,
            "signing_key": self.signing_key,
            "pinned": self.pinned,
            "parameters": self.parameters,
            "round": round,
            "values": values,
        }


def _none() -> Grid:
    raise SecureAggregationError(f"values are masked at the stage {TRAINS!r}, and at no other")


def forget(folder: Path, client: int, run: str, rounds: Iterable[int]) -> None:
    """Forget what was said in these rounds, and their secrets; that they were taken part in stays known.

    Args:
        folder: As of :class:`SecurePart`.
        client: The client's number.
        run: Name of the run.
        rounds: Of it.
    """
    for round in rounds:
        with suppress(SecureAggregationError):  # not begun, or forgotten before
            KeptRound.resume(folder, client, RoundId(run=run, round=round))[0].finish()


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What is in the file of a round, written as one, so that a state and the answer that it follows never part.

    Args:
        state: Of the protocol's client.
        answers: For each stage, the digest of what was asked and the answer.
    """

    state: bytes
    answers: Mapping[str, tuple[bytes, bytes]] = field(default_factory=dict)

    def encode(self) -> bytes:
        parts = [self.state, *(words for _, words in self.answers.values())]
        named = [[stage, asked.hex()] for stage, (asked, _) in self.answers.items()]
        head = {"answers": named, "lengths": [len(part) for part in parts]}
        return b"\n".join([json.dumps(head).encode(), b"".join(parts)])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse.

        Raises:
            SecureAggregationError: It is not whole: the client was killed when it began the round.
        """
        head, _, body = data.partition(b"\n")
        try:
            said = json.loads(head)
            cut, parts = 0, []
            for length in said["lengths"]:
                parts.append(body[cut : cut + length])
                cut += length
            if cut != len(body):
                raise ValueError("it is cut off")
            answers = {
                stage: (bytes.fromhex(asked), words)
                for (stage, asked), words in zip(said["answers"], parts[1:], strict=True)
            }
            return cls(state=parts[0], answers=answers)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise SecureAggregationError(
                f"what was kept of this round cannot be read ({error}): the client takes no further part in it"
            ) from None


def _digest(asked: StageRequest) -> bytes:
    words = hashlib.sha256(json.dumps([asked.stage, asked.round, asked.plan, asked.inputs.hex()]).encode())
    words.update(hashlib.sha256(asked.said).digest())
    return words.digest()
