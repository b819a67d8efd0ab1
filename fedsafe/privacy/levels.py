"""The numbers of each level of a plan, and what it releases with them.

Everything here is fixed before the first round. A level says which events its unit takes part in, so that accounting,
the ledger and the claims speak of the same ones.
"""

import math
from dataclasses import dataclass

from fedsafe.errors import CalibrationError, PlanViolation
from fedsafe.privacy.accounting import Adjacency, FixedSizeGaussian, RdpFilter, Release, SampledGaussian
from fedsafe.privacy.accounting.distributed import DistributedNoise
from fedsafe.privacy.mechanisms import DistributedMechanism, Law

# Who adds the noise of the client level: the server to each sum, under one clip or under one that follows the updates;
# each client to its own update; the server, correlated over rounds; all clients of a round together, under secure
# aggregation; the server, with a multiplier that it chooses for each round from what was released before; or the
# server, to a sum in which public groups of clients have weights.
CENTRAL, ADAPTIVE, LOCAL, BANDED, DISTRIBUTED = "central", "adaptive", "local", "banded", "distributed"
FILTERED, GROUPED = "filtered", "grouped"

# A chosen noise multiplier may be so many times the planned one, for which the public grid has room.
MOST_CHOSEN = 1024.0
LEAST_CHOSEN = 0.1


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What clients add together under secure aggregation.

    Args:
        law: ``"discrete gaussian"`` or ``"skellam"``.
        minimum: Clients that must survive a round; it is aborted below.
        corrupt: Clients, of those, whose shares the adversary may know.
        modulus: Bits of the sum.
        rotated: Whether updates are spread by a public rotation first.
        parameters: Values of the model.
    """

    law: Law
    minimum: int
    corrupt: int
    modulus: int
    rotated: bool
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Mechanics:
    """How the client level releases, besides the numbers that every way has.

    Args:
        mechanism: See :class:`ClientPlan`, as for the others.
        cohort_size: See there.
        separation: See there.
        shares: See there.
        order: See there; None to have the best for the budget.
    """

    mechanism: str = CENTRAL
    cohort_size: int | None = None
    separation: int = 1
    shares: Shares | None = None
    order: float | None = None


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
        caps: Clients that may take part in fewer rounds, since their own budget is smaller, and in how many.
        group: The most records that one person has; the target holds for all of them together.
        grid_bits: Gradient sums and noise are multiples of ``2^-grid_bits``; None for single precision.
        batch_size: Of batches of a fixed size, drawn without replacement; None for Poisson batches.
        least_records: Of any client, a public number: with batches of a fixed size its records cost the most.
        local_steps: Of the steps, those that only find the parameters which stay at the client.
    """

    epsilon: float
    delta: float
    clip: float
    rate: float
    steps: int
    max_participations: int
    noise: float
    caps: tuple[tuple[int, int], ...] = ()
    group: int = 1
    grid_bits: int | None = None
    batch_size: int | None = None
    least_records: int | None = None
    local_steps: int = 0

    @property
    def private(self) -> bool:
        """Whether this level clips and adds noise."""
        return math.isfinite(self.epsilon)

    def mechanism(self, participations: int | None = None) -> Release:
        """What a client releases in ``participations`` rounds, the planned cap by default."""
        rounds = self.max_participations if participations is None else participations
        count = rounds * self.steps
        if self.batch_size is not None and self.least_records is not None:
            return FixedSizeGaussian(
                population=self.least_records, size=self.batch_size, noise=self.noise, count=count
            )
        return SampledGaussian(rate=self.rate, noise=self.noise, count=count)

    def cap_of(self, client: int) -> int:
        """Rounds that a client may take part in."""
        return dict(self.caps).get(client, self.max_participations)


@dataclass(frozen=True, kw_only=True)
class ClientPlan:
    """The noisy average.

    Args:
        epsilon: The target at ``delta``; infinity means plain FedAvg.
        delta: Probability that the bound fails.
        clip: Bound on one client's update, all tensors together.
        rate: Probability of a client to be in a cohort; the expected share of all where cohorts have a fixed size.
        noise: Noise multiplier (0 where epsilon is infinite): over ``clip`` where the server adds the noise, over
            ``2 clip`` where each client does, over what one client moves all rounds by where it is correlated, and over
            the bound on a rounded update where clients add it together. Where each round's is chosen: the one that
            spends the budget evenly.
        grid_bits: Updates and noise are multiples of ``2^-grid_bits``.
        mechanism: ``"central"``, ``"adaptive"``, ``"local"``, ``"banded"``, ``"distributed"``, ``"filtered"`` or
            ``"grouped"``.
        cohort_size: Of cohorts of a fixed size, drawn without replacement; None for Poisson cohorts.
        group: The most clients that one person is; the target holds for all of them together.
        separation: A client takes part in at most one of so many rounds in a row.
        shares: What clients add together, where they do.
        order: Of the Rényi filter that the target is a budget of, where each round's noise is chosen from what was
            released before.
    """

    epsilon: float
    delta: float
    clip: float
    rate: float
    noise: float
    grid_bits: int
    mechanism: str = CENTRAL
    cohort_size: int | None = None
    group: int = 1
    separation: int = 1
    shares: Shares | None = None
    order: float | None = None

    @property
    def private(self) -> bool:
        """Whether this level clips and adds noise."""
        return math.isfinite(self.epsilon)

    @property
    def adjacency(self) -> Adjacency:
        """What the level's own target is about."""
        fixed = self.cohorts_count and self.cohort_size is not None
        return "replace-one" if fixed or self.mechanism == LOCAL else "zero-out"

    @property
    def server_learns_nothing(self) -> bool:
        """Whether the level holds against the server too, which then sees every cohort."""
        return self.mechanism in (LOCAL, DISTRIBUTED)

    @property
    def cohorts_count(self) -> bool:
        """Whether the bound relies on how cohorts are drawn, and on their secrecy."""
        return self.mechanism in (CENTRAL, ADAPTIVE, FILTERED, GROUPED)

    def filter(self) -> RdpFilter:
        """What lets rounds through whose noise is chosen, with nothing spent.

        Raises:
            CalibrationError: This mechanism has none: its noise is fixed before the first round.
        """
        if self.mechanism != FILTERED or self.order is None:
            raise CalibrationError(
                f"the mechanism {self.mechanism!r} of the client level has no Rényi filter"
            )
        return RdpFilter.for_target(self.epsilon, self.delta, order=self.order)

    def chosen(self, noise: object) -> SampledGaussian:
        """One round with a noise multiplier that was chosen for it.

        Raises:
            PlanViolation: It is no number, or outside of what the plan has room for.
        """
        most = MOST_CHOSEN * self.noise
        number = isinstance(noise, int | float) and not isinstance(noise, bool)
        if not number or not LEAST_CHOSEN <= noise <= most:  # type: ignore[operator]
            raise PlanViolation(
                f"a noise multiplier of {noise!r} was chosen: choose a number from {LEAST_CHOSEN:g} to {most:.6g}"
            )
        return SampledGaussian(rate=self.rate, noise=float(noise), count=1)  # type: ignore[arg-type]

    def distributed(self, clients: int, participations: int) -> DistributedNoise:
        """What clients that add the noise together release, in units of its grid.

        Args:
            clients: The registered population.
            participations: Rounds that one client takes part in.
        """
        if self.shares is None:
            raise CalibrationError(f"the mechanism {self.mechanism!r} has no shares of noise")
        shares = self.shares
        mechanism = DistributedMechanism(
            clip=self.clip,
            noise=self.noise,
            bits=0,
            modulus=shares.modulus,
            minimum=shares.minimum,
            corrupt=shares.corrupt,
            law=shares.law,
            rotated=shares.rotated,
        ).on_finest_grid(clients)
        return DistributedNoise(
            law=shares.law,
            share=mechanism.share(shares.parameters),
            honest=mechanism.honest,
            l2=mechanism.bound(shares.parameters),
            l1=mechanism.sum_bound(shares.parameters),
            dimension=mechanism.length(shares.parameters),
            rounds=participations,
        )

    def release(self, *, clients: int, rounds: int, cap: int, adjacency: Adjacency | None = None) -> Release:
        """What one client takes part in, as the level's own adversary sees it.

        Args:
            clients: The registered population.
            rounds: Rounds that released a model.
            cap: The most rounds that a client takes part in.
            adjacency: What differs; the level's own by default.
        """
        if self.mechanism == LOCAL:
            # The multiplier is over 2 clip, the distance of any two updates: nothing is sampled for the server.
            return SampledGaussian(rate=1.0, noise=self.noise, count=min(rounds, cap))
        if self.mechanism == BANDED:
            # All rounds are one release, whose multiplier is over what one client moves all of them by.
            return SampledGaussian(
                rate=1.0, noise=self.noise, count=min(rounds, 1), adjacency=adjacency or self.adjacency
            )
        if self.cohort_size is not None:
            return FixedSizeGaussian(
                population=clients, size=self.cohort_size, noise=self.noise, count=rounds
            )
        return SampledGaussian(
            rate=self.rate, noise=self.noise, count=rounds, adjacency=adjacency or self.adjacency
        )


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

    def of_client(self, rounds: int, adjacency: Adjacency = "zero-out") -> SampledGaussian:
        """What a client takes part in besides training."""
        count = rounds // self.every
        return SampledGaussian(rate=self.rate, noise=self.noise_client, count=count, adjacency=adjacency)
