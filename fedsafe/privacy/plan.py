"""The planned regime: everything that decides epsilon is fixed, and hashed, before the first round.

The plan is the only place where sampling, clipping, mechanism and accounting meet. A round outside the plan is
refused by the ledger; stopping early is covered, since a shorter run spends less.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedsafe.errors import CalibrationError, PlanViolation
from fedsafe.privacy.accounting import SampledGaussian, calibrate_noise, epsilon
from fedsafe.privacy.mechanisms import grid_bits


@dataclass(frozen=True, kw_only=True)
class RecordPlan:
    """DP-SGD at every client.

    Args:
        epsilon: The target at ``delta``; infinity removes clip and noise.
        delta: Probability that the bound fails.
        clip: Bound on one example's gradient, all tensors together.
        rate: Poisson rate of records in a step, the same for every client.
        steps: Steps in a round.
        max_participations: Rounds that one client may take part in.
        noise: Noise multiplier (0 where epsilon is infinite).
    """

    epsilon: float
    delta: float
    clip: float
    rate: float
    steps: int
    max_participations: int
    noise: float

    @property
    def private(self) -> bool:
        """Whether this level clips and adds noise."""
        return math.isfinite(self.epsilon)

    def mechanism(self, participations: int | None = None) -> SampledGaussian:
        """What a client releases in ``participations`` rounds, the planned cap by default."""
        rounds = self.max_participations if participations is None else participations
        return SampledGaussian(rate=self.rate, noise=self.noise, count=rounds * self.steps)


@dataclass(frozen=True, kw_only=True)
class ClientPlan:
    """The noisy average at the server.

    Args:
        epsilon: The target at ``delta``; infinity means plain FedAvg.
        delta: Probability that the bound fails.
        clip: Bound on one client's update, all tensors together.
        rate: Poisson rate of clients in a cohort.
        noise: Noise multiplier (0 where epsilon is infinite).
        grid_bits: Updates and noise are multiples of ``2^-grid_bits``.
    """

    epsilon: float
    delta: float
    clip: float
    rate: float
    noise: float
    grid_bits: int

    @property
    def private(self) -> bool:
        """Whether this level clips and adds noise."""
        return math.isfinite(self.epsilon)

    def mechanism(self, rounds: int) -> SampledGaussian:
        """What the server releases in ``rounds`` rounds."""
        return SampledGaussian(rate=self.rate, noise=self.noise, count=rounds)


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
    """

    clients: int
    rounds: int
    record: RecordPlan
    client: ClientPlan
    program: str

    @property
    def divisor(self) -> float:
        """The public constant that the sum of updates is divided by: the expected cohort."""
        return self.clients * self.client.rate

    @property
    def hash(self) -> str:
        """SHA-256 over every number of the plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def numbers(self) -> dict[str, Any]:
        """The plan for the run record; infinities become null."""

        def level(values: dict[str, Any]) -> dict[str, Any]:
            return {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in values.items()}

        plain = asdict(self)
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
            return {**values, "epsilon": math.inf if values["epsilon"] is None else values["epsilon"]}

        try:
            plan = cls(
                clients=numbers["clients"],
                rounds=numbers["rounds"],
                record=RecordPlan(**level(numbers["record"])),
                client=ClientPlan(**level(numbers["client"])),
                program=numbers["program"],
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
        record = epsilon(self.record.mechanism(worst), self.record.delta) if self.record.private else None
        client = epsilon(self.client.mechanism(rounds), self.client.delta) if self.client.private else None
        return {"record": record, "client": client}


def make_plan(
    *,
    clients: int,
    rounds: int,
    cohort_rate: float,
    record_epsilon: float,
    record_delta: float,
    record_clip: float,
    record_rate: float,
    steps: int,
    max_participations: int | None,
    client_epsilon: float,
    client_delta: float,
    client_clip: float,
    program: str = "",
) -> PrivacyPlan:
    """Calibrate the noise of both levels so that the PLD of the whole plan meets each target.

    Raises:
        CalibrationError: A target cannot be met.
    """
    cap = min(rounds, rounds if max_participations is None else max_participations)
    record_noise = client_noise = 0.0
    if math.isfinite(record_epsilon):
        record_noise = _calibrate("record", record_epsilon, record_delta, record_rate, cap * steps)
    if math.isfinite(client_epsilon):
        client_noise = _calibrate("client", client_epsilon, client_delta, cohort_rate, rounds)
    return PrivacyPlan(
        clients=clients,
        rounds=rounds,
        record=RecordPlan(
            epsilon=record_epsilon,
            delta=record_delta,
            clip=record_clip,
            rate=record_rate,
            steps=steps,
            max_participations=cap,
            noise=record_noise,
        ),
        client=ClientPlan(
            epsilon=client_epsilon,
            delta=client_delta,
            clip=client_clip,
            rate=cohort_rate,
            noise=client_noise,
            grid_bits=grid_bits(client_clip, clients, client_noise),
        ),
        program=program,
    )


def _calibrate(level: str, target: float, delta: float, rate: float, count: int) -> float:
    try:
        return calibrate_noise(target, delta, rate=rate, count=count)
    except CalibrationError as error:
        raise CalibrationError(f"privacy.{level}: {error}") from error
