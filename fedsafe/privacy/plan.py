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
from fedsafe.privacy.accounting import FINE, SampledGaussian, calibrate_noise, epsilon, spending_curve
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
class EvaluationPlan:
    """Federated evaluation: how clients' scores on their own validation records are released.

    Every ``every`` rounds a Poisson cohort of its own is asked for the mean score of the new model, in [0, 1] and
    counted from the middle. A client adds noise before it answers, and the server adds noise to the sum.

    Args:
        every: Rounds between two evaluations.
        noised: Whether scores are noised and charged; if not, they are listed as not covered.
        epsilon: What evaluation alone may cost at either level.
        rate: Poisson rate of clients in an evaluation.
        noise_record: Noise multiplier at the client, where one record moves the mean of n records by 1/(2n).
        noise_client: Noise multiplier at the server, where one client moves the sum of scores by ``score_bound``.
    """

    every: int
    noised: bool
    epsilon: float
    rate: float
    noise_record: float
    noise_client: float

    @property
    def score_bound(self) -> float:
        """What a client's mean from the middle is clipped to: 1/2 holds all of them, and noise needs room."""
        return 1.0 if self.noise_record else 0.5

    def due(self, round: int) -> bool:
        """Whether a round ends with an evaluation."""
        return round % self.every == 0

    def of_record(self, rounds: int) -> SampledGaussian:
        """What a validation record takes part in: nothing hides it from the server, so no rate counts."""
        return SampledGaussian(rate=1.0, noise=self.noise_record, count=rounds // self.every)

    def of_client(self, rounds: int) -> SampledGaussian:
        """What a client takes part in besides training."""
        return SampledGaussian(rate=self.rate, noise=self.noise_client, count=rounds // self.every)


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
        return self.clients * self.client.rate

    @property
    def hash(self) -> str:
        """SHA-256 over every number of the plan."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    def _plain(self) -> dict[str, Any]:
        """Without an evaluation, nothing of it: the hash of such a plan is the one it always had."""
        plain = asdict(self)
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
            return {**values, "epsilon": math.inf if values["epsilon"] is None else values["epsilon"]}

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
            record = max(
                epsilon(self.record.mechanism(worst), self.record.delta), self._validation_epsilon(rounds)
            )
        if self.client.private:
            client = epsilon(
                self.client.mechanism(rounds), self.client.delta, FINE, self._evaluations(rounds)
            )
        return {"record": record, "client": client}

    def spending(self) -> dict[str, list[float | None]]:
        """Planned epsilon of each level after each round: the worst case, whoever took part."""
        rounds = range(1, self.rounds + 1)
        record: list[float | None] = [None] * self.rounds
        client: list[float | None] = [None] * self.rounds
        if self.record.private:
            level = self.record
            worst = [min(round, level.max_participations) * level.steps for round in rounds]
            trained = spending_curve(level.mechanism(), level.delta, worst)
            record = [
                max(bound, self._validation_epsilon(round))
                for round, bound in zip(rounds, trained, strict=True)
            ]
        if self.client.private:
            mechanism = self.client.mechanism(self.rounds)
            client = [*spending_curve(mechanism, self.client.delta, list(rounds), self._evaluations)]
        return {"record": record, "client": client}

    def _evaluations(self, rounds: int) -> tuple[SampledGaussian, ...]:
        """Evaluations that a client's training composes with."""
        noised = self.evaluation is not None and self.evaluation.noised
        return (self.evaluation.of_client(rounds),) if self.evaluation and noised else ()

    def _validation_epsilon(self, rounds: int) -> float:
        """Epsilon of a validation record, which training never reads: the two do not add up."""
        if self.evaluation is None or not self.evaluation.noised:
            return 0.0
        return epsilon(self.evaluation.of_record(rounds), self.record.delta)


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
    evaluate_every: int | None = None,
    evaluation_epsilon: float = math.inf,
) -> PrivacyPlan:
    """Calibrate the noise of both levels so that the PLD of the whole plan meets each target.

    The arguments are those of the plan's parts; ``evaluate_every`` None means no federated evaluation, and an
    infinite ``evaluation_epsilon`` sends its scores without noise, outside of the claims.

    Raises:
        CalibrationError: A target cannot be met.
    """
    cap = min(rounds, rounds if max_participations is None else max_participations)
    record_noise = client_noise = 0.0
    evaluation: EvaluationPlan | None = None
    if evaluate_every is not None:
        evaluation = _plan_evaluation(
            every=evaluate_every,
            target=evaluation_epsilon,
            rounds=rounds,
            rate=cohort_rate,
            record=(record_epsilon, record_delta),
            client=(client_epsilon, client_delta),
        )
    if math.isfinite(record_epsilon):
        record_noise = _calibrate("record", record_epsilon, record_delta, record_rate, cap * steps)
    if math.isfinite(client_epsilon):
        also = (evaluation.of_client(rounds),) if evaluation and evaluation.noised else ()
        client_noise = _calibrate("client", client_epsilon, client_delta, cohort_rate, rounds, also)
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
        evaluation=evaluation,
    )


def _plan_evaluation(
    *,
    every: int,
    target: float,
    rounds: int,
    rate: float,
    record: tuple[float, float],
    client: tuple[float, float],
) -> EvaluationPlan:
    noised = math.isfinite(target)
    noise = {"record": 0.0, "client": 0.0}
    for level, (whole, delta), sampled in (("record", record, 1.0), ("client", client, rate)):
        if not noised or not math.isfinite(whole):
            continue
        if target > whole or (level == "client" and target == whole):
            raise CalibrationError(
                f"evaluation may cost epsilon {target:g}, all of privacy.{level}.epsilon = {whole:g} or more: lower it"
            )
        if rounds >= every:
            noise[level] = _calibrate(f"{level} (evaluation)", target, delta, sampled, rounds // every)
    return EvaluationPlan(
        every=every,
        noised=noised,
        epsilon=target if noised else 0.0,
        rate=rate,
        noise_record=noise["record"],
        noise_client=noise["client"],
    )


def _calibrate(
    level: str, target: float, delta: float, rate: float, count: int, also: tuple[SampledGaussian, ...] = ()
) -> float:
    try:
        return calibrate_noise(target, delta, rate=rate, count=count, also=also)
    except CalibrationError as error:
        raise CalibrationError(f"privacy.{level}: {error}") from error
