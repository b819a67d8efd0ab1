"""The plan of a run: everything that decides epsilon is fixed, and hashed, before the first round.

A round outside the plan is refused by the ledger; stopping early is covered, since a shorter run spends less. In the
adaptive regime the client level fixes a budget and the order of its Rényi filter, in place of the noise of each round.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from fedsafe.errors import CalibrationError, PlanViolation
from fedsafe.privacy.accounting import (
    Accounted,
    Adjacency,
    Release,
    SampledGaussian,
    account,
    epsilon,
    group_epsilon,
    spending_curve,
)
from fedsafe.privacy.accounting.distributed import distributed_epsilon
from fedsafe.privacy.levels import DISTRIBUTED, FILTERED, ClientPlan, EvaluationPlan, RecordPlan, Shares

# At how many rounds the spend of a slow accountant is found.
_POINTS = 10


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """What a run is allowed to release.

    Args:
        clients: The registered population.
        rounds: The most rounds.
        record: DP-SGD at every client.
        client: The noisy average.
        program: Digest of everything else that decides what a client releases (model, learning rate, ...), so
            that a changed program is another plan: its rounds would meet the same noise with other inputs.
        evaluation: Federated evaluation, if there is any.
    """

    clients: int
    rounds: int
    record: RecordPlan
    client: ClientPlan
    program: str
    evaluation: EvaluationPlan | None = None

    @property
    def divisor(self) -> float:
        """The public constant that the sum of updates is divided by: the expected cohort."""
        size = self.client.cohort_size
        return self.clients * self.client.rate if size is None else float(size)

    @property
    def hash(self) -> str:
        """SHA-256 over every number of the plan."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    def _plain(self) -> dict[str, Any]:
        """Without what is at its default: the hash of a plan is the one it had before there was such a thing."""
        plain = asdict(self)
        for name in ("record", "client"):
            optional = {f.name: f.default for f in fields(getattr(self, name)) if f.default is not MISSING}
            plain[name] = {
                key: value
                for key, value in plain[name].items()
                if key not in optional or value != optional[key]
            }
        return plain if self.evaluation else {k: v for k, v in plain.items() if k != "evaluation"}

    def numbers(self) -> dict[str, Any]:
        """The plan for the run record; infinities become null."""

        def level(values: dict[str, Any]) -> dict[str, Any]:
            return {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in values.items()}

        plain = self._plain()
        return {
            "hash": self.hash,
            **plain,
            "record": level(plain["record"]),
            "client": level(plain["client"]),
        }

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> "PrivacyPlan":
        """Read back what :meth:`numbers` gave, without calibrating again.

        Raises:
            PlanViolation: The numbers do not give the hash that stands beside them.
        """

        def level(values: Mapping[str, Any]) -> dict[str, Any]:
            return {
                **values,
                "epsilon": math.inf if values["epsilon"] is None else values["epsilon"],
                **({"caps": tuple((k, v) for k, v in values["caps"])} if "caps" in values else {}),
                **({"shares": Shares(**values["shares"])} if "shares" in values else {}),
            }

        try:
            plan = cls(
                clients=numbers["clients"],
                rounds=numbers["rounds"],
                record=RecordPlan(**level(numbers["record"])),
                client=ClientPlan(**level(numbers["client"])),
                program=numbers["program"],
                evaluation=EvaluationPlan(**numbers["evaluation"]) if "evaluation" in numbers else None,
            )
        except (KeyError, TypeError) as error:
            raise PlanViolation(
                f"the plan in the run record is incomplete: {error}; restore the record"
            ) from error
        if plan.hash != numbers.get("hash"):
            raise PlanViolation("the plan in the run record does not match its hash: the record was edited")
        return plan

    def spend(self, rounds: int, participations: int | None = None) -> dict[str, float | None]:
        """Epsilon of each level after ``rounds`` rounds (null without a guarantee).

        Args:
            rounds: Rounds that released a model.
            participations: The most rounds that any client took part in; the worst case by default.
        """
        cap = self.record.max_participations
        worst = min(rounds, cap if participations is None else participations)
        record = client = None
        if self.record.private:
            record = self.record_epsilon(rounds, worst)
        if self.client.private:
            client = self.client_epsilon(rounds, worst)
        return {"record": record, "client": client}

    def record_epsilon(self, rounds: int, participations: int) -> float:
        """Of all records of one person in one client who took part so often, its validation records included."""
        released = self.record.mechanism(participations)
        return max(of_group(released, self.record), self._validation_epsilon(rounds))

    @property
    def _fixed(self) -> bool:
        return self.client.cohorts_count and self.client.cohort_size is not None

    def client_epsilon(self, rounds: int, participations: int) -> float:
        """The number of :meth:`client_account` under the level's own adjacency and delta."""
        return self.client_account(rounds, participations).epsilon

    def client_account(
        self,
        rounds: int,
        participations: int,
        *,
        adjacency: Adjacency | None = None,
        delta: float | None = None,
    ) -> Accounted:
        """What one client, or all that one person is, spends as the client level's own adversary sees it.

        Args:
            rounds: Rounds that released a model.
            participations: The most rounds that any client took part in.
            adjacency: What differs; the level's own by default.
            delta: Probability that the bound fails; the level's own by default.
        """
        level = self.client
        if level.mechanism == DISTRIBUTED:
            return self._distributed_account(
                participations, adjacency or level.adjacency, delta or level.delta
            )
        if level.mechanism == FILTERED:
            return self._filter_account(rounds, adjacency or level.adjacency, delta or level.delta)
        release = level.release(clients=self.clients, rounds=rounds, cap=participations, adjacency=adjacency)
        evaluations = self._evaluations(rounds, release.adjacency)
        found = account([release, *evaluations], delta or level.delta)
        if level.group == 1:
            # The bound for cohorts of a fixed size is loose where nearly everyone is in each.
            known = (
                self.known_account(participations, release.adjacency, found.delta) if self._fixed else found
            )
            return min(found, known, key=lambda bound: bound.epsilon)
        return replace(
            found,
            epsilon=group_epsilon(release, found.delta, level.group, evaluations),
            accountant=f"{found.accountant}, for {level.group} clients of one person",
        )

    def known_account(self, participations: int, adjacency: Adjacency, delta: float) -> Accounted:
        """What one client, or all that one person is, spends for somebody who sees every cohort: nothing is amplified.

        Args:
            participations: The most rounds that any client takes part in.
            adjacency: What differs.
            delta: Probability that the bound fails.
        """
        release = SampledGaussian(
            rate=1.0, noise=self.client.noise, count=participations, adjacency=adjacency
        )
        evaluations = tuple(replace(part, rate=1.0) for part in self._evaluations(self.rounds, adjacency))
        found = account([release, *evaluations], delta)
        if self.client.group == 1:
            return found
        return replace(found, epsilon=group_epsilon(release, delta, self.client.group, evaluations))

    def _distributed_account(self, participations: int, adjacency: Adjacency, delta: float) -> Accounted:
        noise = self.client.distributed(self.clients, participations)
        whole = noise.replaced() if adjacency == "replace-one" else noise
        return Accounted(
            epsilon=distributed_epsilon(whole, delta),
            delta=delta,
            adjacency=adjacency,
            accountant=f"RDP of the {noise.law} mechanism for {noise.honest} honest survivors",
        )

    def _filter_account(self, rounds: int, adjacency: Adjacency, delta: float) -> Accounted:
        """The whole budget, spent or not: what is spent is no bound for a run that stops because of what it saw."""
        level = self.client
        if (adjacency, delta) != (level.adjacency, level.delta):
            raise CalibrationError(
                f"a Rényi filter under {level.adjacency} adjacency at delta {level.delta:g} has no bound under "
                f"{adjacency} at delta {delta:g}: account for it as it is"
            )
        return level.filter().accounted() if rounds else account([], delta, adjacency)

    def spending(self) -> dict[str, list[float | None]]:
        """Planned epsilon of each level after each round: the worst case, whoever took part."""
        rounds = range(1, self.rounds + 1)
        record: list[float | None] = [None] * self.rounds
        client: list[float | None] = [None] * self.rounds
        if self.record.private:
            level = self.record
            worst = [min(round, level.max_participations) * level.steps for round in rounds]
            whole = level.mechanism()
            if level.group > 1 or not isinstance(whole, SampledGaussian):
                record = self._record_spending()
            else:
                trained = spending_curve(whole, level.delta, worst)
                record = [
                    max(bound, self._validation_epsilon(round))
                    for round, bound in zip(rounds, trained, strict=True)
                ]
        if self.client.private:
            client = self._client_spending()
        return {"record": record, "client": client}

    def _record_spending(self) -> list[float | None]:
        cap = self.record.max_participations
        return self._at_some(lambda round: self.record_epsilon(round, min(round, cap)))

    def _at_some(self, bound: Callable[[int], float]) -> list[float | None]:
        """A bound after each round, found at a few of them: between two stands the figure of the later one."""
        points = {
            round: bound(round)
            for round in {*range(self.rounds, 0, -max(1, self.rounds // _POINTS)), self.rounds}
        }
        return [
            min(value for at, value in points.items() if at >= round) for round in range(1, self.rounds + 1)
        ]

    def _client_spending(self) -> list[float | None]:
        level, cap = self.client, self.record.max_participations
        if level.mechanism == FILTERED:
            return [self.client_epsilon(self.rounds, cap)] * self.rounds
        central = level.mechanism != DISTRIBUTED
        whole = level.release(clients=self.clients, rounds=self.rounds, cap=cap) if central else None
        if not isinstance(whole, SampledGaussian) or level.group > 1:
            return self._at_some(lambda round: self.client_epsilon(round, min(round, cap)))
        counts = [
            level.release(clients=self.clients, rounds=round, cap=min(round, cap)).count
            for round in range(1, self.rounds + 1)
        ]
        return [*spending_curve(whole, level.delta, counts, lambda count: self._evaluations(count))]

    def _evaluations(self, rounds: int, adjacency: Adjacency = "zero-out") -> tuple[SampledGaussian, ...]:
        """Evaluations that a client's training composes with."""
        if self.evaluation is None or not self.evaluation.noised:
            return ()
        return (self.evaluation.of_client(rounds, adjacency),)

    def _validation_epsilon(self, rounds: int) -> float:
        """Epsilon of validation records, which training never reads: the two do not add up."""
        if self.evaluation is None or not self.evaluation.noised:
            return 0.0
        return of_group(self.evaluation.of_record(rounds), self.record)


def of_group(release: Release, level: RecordPlan) -> float:
    """Epsilon at a level's delta of as many records as one person has."""
    if level.group == 1:
        return epsilon(release, level.delta)
    return group_epsilon(release, level.delta, level.group)
