"""A rule of a user's own behind the same protocol: what it raises or returns is checked, and reported by its name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Aggregator, Fold, Rule, State, Updates
from fedsafe.errors import ConfigError, EngineError, FedSafeError
from fedsafe.extensions import one_line
from fedsafe.params import Vector
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream, StreamId

REQUIRED = ("from_plan", "zero", "add", "merge", "finish")

Result = TypeVar("Result")


class Checked(Rule):
    """Delegates to a rule, and turns whatever goes wrong in it into one sentence.

    It never carries a client-level claim: nobody has checked the proof.

    Args:
        label: What the configuration calls it.
        rule: What its ``from_plan`` returned.
    """

    name: ClassVar[str] = "checked"

    def __init__(self, label: str, rule: Any) -> None:
        self._label = label
        self._rule: Aggregator = rule
        self.name = label  # type: ignore[misc]
        self.needs_losses = bool(getattr(rule, "needs_losses", False))  # type: ignore[misc]
        self.needs_draws = bool(getattr(rule, "needs_draws", False))  # type: ignore[misc]
        self.remembers = bool(getattr(rule, "remembers", hasattr(rule, "state")))  # type: ignore[misc]
        self.folds_rows = bool(getattr(rule, "folds_rows", False))  # type: ignore[misc]
        self.needs_groups = bool(getattr(rule, "needs_groups", False))  # type: ignore[misc]

    @classmethod
    def from_plan(cls, plan: PrivacyPlan, *args: Any, **options: Any) -> Self:
        """Not how one is made: the rule inside has its own."""
        raise ConfigError("an import path is made by build_aggregator")

    def zero(self, parameters: int) -> Fold:
        """The rule's, checked."""
        return self._fold("zero", self._call("zero", lambda: self._rule.zero(parameters)))

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """The rule's, checked."""
        return self._fold("add", self._call("add", lambda: self._rule.add(fold, updates)))

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The rule's, checked."""
        return self._fold("merge", self._call("merge", lambda: self._rule.merge(first, second)))

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """The rule's, checked: one finite number for each parameter."""
        found = self._call("finish", lambda: self._rule.finish(fold, noise))
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu" or found.ndim != 1:
            raise self._wrong("finish", _what(found), "a vector of floats, (parameters,)")
        broken = int(np.sum(~np.isfinite(found)))
        if broken:
            raise self._wrong("finish", f"{broken} values that are not finite", "finite values")
        return found.astype(np.float64, copy=False)

    def correction(self, client: int, parameters: int) -> Vector | None:
        """The rule's, checked; None if it has none."""
        if not hasattr(self._rule, "correction"):
            return None
        found: Any = self._call("correction", lambda: self._rule.correction(client, parameters))
        if found is None:
            return None
        if not isinstance(found, np.ndarray) or found.shape != (parameters,) or found.dtype.kind not in "fiu":
            raise self._wrong("correction", _what(found), f"None or floats of shape ({parameters},)")
        return found.astype(np.float32, copy=False)

    def announce(self) -> Mapping[str, float]:
        """The rule's, checked; empty if it has none."""
        if not hasattr(self._rule, "announce"):
            return {}
        found: Any = self._call("announce", self._rule.announce)
        if not isinstance(found, Mapping) or not all(
            isinstance(name, str) and isinstance(value, int | float) for name, value in found.items()
        ):
            raise self._wrong("announce", _what(found), "numbers by name")
        return {name: float(value) for name, value in found.items()}

    def advance(self, fold: Fold, noise: Stream | None = None) -> None:
        """The rule's, if it has one; it may leave the noise out."""
        if not hasattr(self._rule, "advance"):
            return
        rule: Any = self._rule
        takes_noise = len(inspect.signature(rule.advance).parameters) > 1
        self._call("advance", lambda: rule.advance(fold, noise) if takes_noise else rule.advance(fold))

    def recall(self, parameters: int, noise: Callable[[int], Stream]) -> None:
        """The rule's, if it has one."""
        if hasattr(self._rule, "recall"):
            self._call("recall", lambda: self._rule.recall(parameters, noise))

    def state(self) -> State:
        """The rule's, checked; empty if it has none."""
        if not hasattr(self._rule, "state"):
            return {}
        found: Any = self._call("state", self._rule.state)
        if not _plain_arrays(found):
            raise self._wrong("state", _what(found), "a dict of numeric arrays")
        return dict(found)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """The rule's, if it has one."""
        if hasattr(self._rule, "restore"):
            self._call("restore", lambda: self._rule.restore(state))
        else:
            super().restore(state)

    def _call(self, method: str, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except FedSafeError:
            raise
        except Exception as error:  # a user's own code may raise anything
            raise EngineError(
                f"the aggregator {self._label!r} failed in {method}: {one_line(error)}; mend it, or name another"
            ) from error

    def _fold(self, method: str, found: Any) -> Fold:
        if not isinstance(found, Fold):
            raise self._wrong(method, _what(found), "a Fold")
        if not _plain_arrays(found.arrays):
            raise self._wrong(
                method, "a Fold with other things than arrays", "a Fold of numeric arrays by name"
            )
        return found

    def _wrong(self, method: str, found: str, expected: str) -> EngineError:
        return EngineError(
            f"the aggregator {self._label!r} returned {found} from {method}: it must be {expected}"
        )


def require_members(label: str, rule: object) -> None:
    """Refuse what is no aggregator at all.

    Raises:
        ConfigError: With what it lacks.
    """
    lacks = [member for member in REQUIRED if not callable(getattr(rule, member, None))]
    if lacks:
        raise ConfigError(
            f"{label!r} is no aggregator: it lacks {', '.join(lacks)}; inherit fedsafe.aggregation.RowRule and write "
            "combine, or write the members of fedsafe.aggregation.Aggregator"
        )


def rehearse(aggregator: Aggregator) -> None:
    """Put three clients through the whole protocol, so that a broken rule is reported before anything slow.

    Raises:
        FedSafeError: What went wrong, by the aggregator's name.
    """
    parameters = 4
    rows = np.linspace(-1.0, 1.0, 3 * parameters).reshape(3, parameters)
    losses = np.array([0.5, 0.25, 1.0]) if aggregator.needs_losses else None

    def part(chosen: slice) -> Fold:
        updates = Updates(
            clients=np.arange(3)[chosen],
            rows=rows[chosen],
            examples=np.array([2.0, 3.0, 4.0])[chosen],
            losses=None if losses is None else losses[chosen],
        )
        return aggregator.add(aggregator.zero(parameters), updates)

    noise = Stream(bytes(32), StreamId(purpose="rehearsal", client=-1, round=0, digest=b""))
    for fold in (aggregator.merge(part(slice(0, 2)), part(slice(2, 3))), aggregator.zero(parameters)):
        require_update(aggregator, aggregator.finish(fold, noise), parameters)
        aggregator.advance(fold, noise)
        aggregator.correction(0, parameters)
    aggregator.restore(aggregator.state())


def require_update(
    aggregator: Aggregator, update: NDArray[np.float64], parameters: int
) -> NDArray[np.float64]:
    """An aggregator's update, if it has one value for each parameter.

    Raises:
        EngineError: It has not.
    """
    if update.shape != (parameters,):
        raise EngineError(
            f"the aggregator {aggregator.name!r} returned {_what(update)} from finish: it must be ({parameters},)"
        )
    return update


def _plain_arrays(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(array, np.ndarray) and array.dtype.kind in "fiub"
        for name, array in found.items()
    )


def _what(found: Any) -> str:
    if isinstance(found, np.ndarray):
        return f"an array of {found.dtype} and shape {found.shape}"
    return type(found).__name__
