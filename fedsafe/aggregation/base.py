"""What an aggregator is: a monoid that folds clients' updates, wherever they were trained.

A worker folds the updates of its clients with ``add``; the server joins the folds with ``merge`` and turns the
result into one update of the model with ``finish``. How clients were packed into folds must not change a bit.

Some rules remember: control variates, or weights of the clients. Only the server's instance does, it changes in
``advance`` alone, and its ``state`` reveals who took part: it never leaves ``RUN/private/``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import RecordError
from fedsafe.params import Vector
from fedsafe.privacy.levels import CENTRAL, Mechanics
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream

State = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Updates:
    """Updates of several clients, as trained.

    Args:
        clients: ``(rows,)`` client numbers.
        rows: ``(rows, parameters)`` float64, the trained parameters less the broadcast ones.
        examples: ``(rows,)`` number of records of each client, the weight of plain FedAvg.
        losses: ``(rows,)`` mean training loss of each client at the broadcast model, for the rules that need it.
        draws: For each row, the stream of what its client draws before it sends, for the rules whose clients do.
        announced: What the rule at the server announced with the model.
    """

    clients: NDArray[np.int64]
    rows: NDArray[np.float64]
    examples: NDArray[np.float64]
    losses: NDArray[np.float64] | None = None
    draws: Sequence[Stream] | None = None
    announced: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What an aggregator has folded so far, as plain arrays that any transport can carry."""

    arrays: dict[str, NDArray[Any]]


class Aggregator(Protocol):
    """Folds updates and turns a fold into one update of the global model.

    A rule of your own may leave out everything but ``name``, ``from_plan`` and the four operations of the fold; the
    rest then is as in :class:`Rule`.

    Guarantees:
        ``merge`` is associative and commutative up to the bits of ``finish`` and of the state after ``advance``,
        and ``zero`` is its identity. An absent client changes nothing but what it would have added. ``finish``
        changes nothing.
    """

    name: ClassVar[str]
    # Whether one client's influence on the fold is bounded by the clip, with a proof. Without it there is no
    # client-level claim.
    proven_sensitivity: ClassVar[bool]
    # Who adds the noise, and how: see ``fedsafe.privacy.levels``.
    mechanism: ClassVar[str]
    # Whether ``Updates.losses`` must be there. It costs a forward pass over each client's records.
    needs_losses: ClassVar[bool]
    # Whether clients draw something themselves, such as noise: ``Updates.draws`` must be there.
    needs_draws: ClassVar[bool]
    # Whether ``state`` is part of the run: saved after each round, restored on resuming.
    remembers: ClassVar[bool]
    # What leaves a client un-noised because of this rule; each a phrase for the claim's list of what it does not cover.
    releases: ClassVar[tuple[str, ...]]
    # Whether a fold of one follows from the client's trained model and its number of records alone: a real client then
    # sends these, and the server folds.
    folds_uploads: ClassVar[bool]
    # Whether ``from_plan`` is given ``membership``: the public group of each client, by the option ``column``.
    needs_groups: ClassVar[bool]
    # Whether a fold holds each client's update by itself, as those of ``RowRule`` do, and not their sum.
    folds_rows: ClassVar[bool]

    @classmethod
    def from_plan(cls, plan: PrivacyPlan, *args: Any, **options: Any) -> Self:
        """The aggregator for a privacy plan.

        Args:
            plan: The calibrated plan.
            args: None are given.
            options: Those of the configuration; ``learning_rate``, the clients', and ``membership``, their groups
                (:class:`~fedsafe.aggregation.grouped_membership.Membership`), where these are named.
        """
        ...

    @classmethod
    def mechanics(cls, *, cohort: float, parameters: int, options: Mapping[str, Any]) -> Mechanics:
        """How a plan with this rule releases; see :meth:`Rule.mechanics`."""
        ...

    def zero(self, parameters: int) -> Fold:
        """The fold of no client."""
        ...

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """The fold with these clients' updates added; a non-finite update counts as zero."""
        ...

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The fold of the clients of both."""
        ...

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """``(parameters,)`` update of the global model."""
        ...

    def correction(self, client: int, parameters: int) -> Vector | None:
        """``(parameters,)`` that the client adds to every step's gradient in the coming round, or None."""
        ...

    def announce(self) -> Mapping[str, float]:
        """Public numbers that the clients of the coming round are told beside the model."""
        ...

    def choose_noise(self) -> float | None:
        """The noise multiplier of the coming round, from what was released before it; None where the plan fixes it.

        Asked before the round is reserved: the ledger writes it down, and ``finish`` uses it.
        """
        ...

    def advance(self, fold: Fold, noise: Stream) -> None:
        """Remember what the finished round says; called once, after ``finish``.

        Args:
            fold: The round's.
            noise: What ``finish`` was given, from its start: a rule that releases more than its update, or correlates
                the noise of rounds, draws the same again.
        """
        ...

    def figures(self) -> Mapping[str, float]:
        """Public numbers for the record of the round that was finished, by name: they follow from what was released."""
        ...

    def recall(self, parameters: int, noise: Callable[[int], Stream]) -> None:
        """Draw again what earlier rounds drew, once a state was restored.

        Args:
            parameters: Values of the model.
            noise: For each earlier round, from 1, the stream that its ``finish`` was given, from its start.
        """
        ...

    def state(self) -> State:
        """What the rule remembers, as plain arrays; empty if nothing."""
        ...

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Remember what :meth:`state` gave.

        Raises:
            RecordError: It is not a state of this rule.
        """
        ...


class Rule:
    """What most rules answer: no proof, no losses, no memory."""

    proven_sensitivity: ClassVar[bool] = False
    mechanism: ClassVar[str] = CENTRAL
    needs_losses: ClassVar[bool] = False
    needs_draws: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    releases: ClassVar[tuple[str, ...]] = ()
    folds_uploads: ClassVar[bool] = False
    folds_rows: ClassVar[bool] = False
    needs_groups: ClassVar[bool] = False

    @classmethod
    def mechanics(cls, *, cohort: float, parameters: int, options: Mapping[str, Any]) -> Mechanics:
        """How a plan with this rule releases.

        Args:
            cohort: The expected cohort.
            parameters: Values of the model.
            options: Of the rule.
        """
        return Mechanics(mechanism=cls.mechanism)

    def correction(self, client: int, parameters: int) -> Vector | None:
        """None: clients follow their own gradients."""
        return None

    def announce(self) -> Mapping[str, float]:
        """Nothing."""
        return {}

    def choose_noise(self) -> float | None:
        """None: the plan fixes the noise."""
        return None

    def advance(self, fold: Fold, noise: Stream | None = None) -> None:
        """Nothing is remembered."""

    def figures(self) -> Mapping[str, float]:
        """None."""
        return {}

    def recall(self, parameters: int, noise: Callable[[int], Stream]) -> None:
        """Nothing of earlier rounds' noise is needed."""

    def state(self) -> State:
        """Nothing is remembered."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Accept the empty state only.

        Raises:
            RecordError: There is something in it.
        """
        if state:
            raise RecordError(f"this aggregator remembers nothing, and was given {', '.join(sorted(state))}")
