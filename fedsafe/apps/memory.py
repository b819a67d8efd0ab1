"""What a node remembers between the messages of one run, each of which may meet a new process.

It is kept in the state of the node's own Flower context: SuperNodes and the simulation engine give it back with the
next message, and never send it to the server. A key that leaves, or a second answer to one round, would undo the noise.
"""

import hashlib
import json
from collections.abc import Callable
from typing import cast

from flwr.app import ConfigRecord, Context

from fedsafe.errors import PlanViolation
from fedsafe.privacy.plan import PrivacyPlan


class NodeMemory:
    """The node's noise key, what it agreed to, and what it has released under it.

    Runs of one series share a context, so that each run has a record of its own.

    Args:
        context: The node's context; what is remembered is in it at once.
    """

    def __init__(self, context: Context) -> None:
        self._state, self._name = context.state, f"fedsafe-{context.run_id}"

    @property
    def key(self) -> bytes:
        """The node's noise key in this run."""
        return bytes.fromhex(cast("str", self._record["key"]))

    @property
    def plan(self) -> PrivacyPlan | None:
        """The plan that the node agreed to, if it did."""
        if self._name not in self._state.config_records:
            return None
        return PrivacyPlan.from_numbers(json.loads(cast("str", self._record["plan"])))

    def agree(self, plan: PrivacyPlan, experiment: str, new_key: Callable[[], bytes]) -> None:
        """Remember an experiment and its plan, under a key that is made when the node meets the run.

        Args:
            plan: What the node may release.
            experiment: The whole configuration. Not all of it is in the plan, and a release depends on all of it.
            new_key: Makes the key.

        Raises:
            PlanViolation: The node agreed to another one in this run.
        """
        agreed, digest = self.plan, hashlib.sha256(experiment.encode()).hexdigest()
        if agreed is None:
            numbers = json.dumps(plan.numbers())
            self._state[self._name] = ConfigRecord(
                {"key": new_key().hex(), "plan": numbers, "experiment": digest}
            )
        elif agreed.hash != plan.hash:
            raise PlanViolation(
                f"this node agreed to plan {agreed.hash[:12]} in this run, and now to {plan.hash[:12]}"
            )
        elif self._record["experiment"] != digest:
            raise PlanViolation(
                "this node agreed to another experiment in this run: the same round of two experiments would meet the "
                "same noise"
            )

    def release(self, kind: str, round: int, digest: bytes, *, most: int, apart: int = 1) -> None:
        """Write down a release before it is made. The same one again is a repetition, and counts once.

        Args:
            kind: What is released, such as ``"train"``.
            round: The round, from 1.
            digest: Of everything that the release depends on besides the records.
            most: Releases of this kind that the plan allows.
            apart: The least distance of two rounds that it allows.

        Raises:
            PlanViolation: The round was released with other inputs, or the plan allows no more, or not yet.
        """
        if not most:
            raise PlanViolation(f"the plan of this node has no {kind} message in round {round}")
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
        if any(abs(round - other) < apart for other in rounds):
            raise PlanViolation(
                f"this node takes part at most once in {apart} rounds, and did so near round {round}"
            )
        self._record[f"{kind} rounds"] = [*rounds, round]
        self._record[f"{kind} digests"] = [*digests, digest.hex()]

    @property
    def _record(self) -> ConfigRecord:
        return self._state.config_records[self._name]
