"""What a node remembers between the messages of one run, each of which may meet a new process.

It is kept in the state of the node's own Flower context: SuperNodes and the simulation engine give it back with the
next message, and never send it to the server. A key that leaves, or a second answer to one round, would undo the noise.
"""

import json
from collections.abc import Callable
from typing import cast

from flwr.app import ConfigRecord, Context

from fedsafe.errors import PlanViolation
from fedsafe.privacy.plan import PrivacyPlan


class NodeMemory:
    """The node's noise key, the plan that it agreed to, and what it has released under it.

    Runs of one series share a context, so that each run has a record of its own.

    Args:
        context: The node's context; what is remembered is in it at once.
        new_key: Makes the noise key of a run that the node meets for the first time.
    """

    def __init__(self, context: Context, new_key: Callable[[], bytes]) -> None:
        name = f"fedsafe-{context.run_id}"
        if name not in context.state.config_records:
            context.state[name] = ConfigRecord({"key": new_key().hex(), "plan": ""})
        self._record = context.state.config_records[name]

    @property
    def key(self) -> bytes:
        """The node's noise key in this run."""
        return bytes.fromhex(cast("str", self._record["key"]))

    @property
    def plan(self) -> PrivacyPlan | None:
        """The plan that the node agreed to, if it did."""
        numbers = cast("str", self._record["plan"])
        return PrivacyPlan.from_numbers(json.loads(numbers)) if numbers else None

    def agree(self, plan: PrivacyPlan) -> None:
        """Remember the plan.

        Raises:
            PlanViolation: The node agreed to another one in this run.
        """
        if self.plan is not None and self.plan.hash != plan.hash:
            raise PlanViolation(
                f"this node agreed to plan {self.plan.hash[:12]} in this run, and now to {plan.hash[:12]}"
            )
        self._record["plan"] = json.dumps(plan.numbers())

    def release(self, kind: str, round: int, digest: bytes, *, most: int) -> None:
        """Write down a release before it is made. The same one again is a repetition, and counts once.

        Args:
            kind: What is released, such as ``"train"``.
            round: The round, from 1.
            digest: Of everything that the release depends on besides the records.
            most: Releases of this kind that the plan allows.

        Raises:
            PlanViolation: The round was released with other inputs, or the plan allows no more.
        """
        rounds = cast("list[int]", self._record.get(f"{kind} rounds", []))
        digests = cast("list[str]", self._record.get(f"{kind} digests", []))
        if round in rounds:
            if digests[rounds.index(round)] != digest.hex():
                raise PlanViolation(
                    f"round {round} was already answered with other inputs: a second answer under the same noise would "
                    "reveal their difference"
                )
            return
        if len(rounds) >= most:
            raise PlanViolation(
                f"this node has used the {most} rounds that the plan allows it to take part in"
            )
        self._record[f"{kind} rounds"] = [*rounds, round]
        self._record[f"{kind} digests"] = [*digests, digest.hex()]
