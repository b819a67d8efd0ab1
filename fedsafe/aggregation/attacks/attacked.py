"""A rule under attack: the rows of adversaries are replaced before the rule sees them."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.attacks.base import Attack
from fedsafe.aggregation.base import Aggregator, Fold, Rule, State, Updates
from fedsafe.errors import ConfigError, EngineError, FedSafeError
from fedsafe.extensions import one_line
from fedsafe.params import Vector
from fedsafe.privacy.clipping import finite_rows
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream, public_generator

_ROWS = ("clients", "rows")


@final
class Attacked(Rule):
    """Delegates to a rule over rows; at the end of a round the adversaries' rows become what the attack makes of them.

    Args:
        rule: The rule.
        attack: What the adversaries send.
        label: What the configuration calls the attack, for messages.
        adversaries: Numbers of the clients that are adversaries.
        seed: The attack's randomness follows from it and from the round's rows: the same round has the same attack,
            however it was packed, and no noise of the run is read.

    Guarantees:
        A round without adversaries, or without honest clients, is left as it is. A malicious row that is not finite
        becomes zero, as any client's does.

    Raises:
        ConfigError: The rule adds its updates up, and has no rows to attack.
    """

    name: ClassVar[str] = "attacked"

    def __init__(
        self, rule: Aggregator, attack: Attack, *, label: str, adversaries: NDArray[np.int64], seed: int
    ) -> None:
        require_rows(rule.name, rule.folds_rows, label)
        self._rule, self._attack, self._label = rule, attack, label
        self._adversaries, self._seed = adversaries, seed
        for member in ("name", "needs_losses", "needs_draws", "remembers", "releases", "folds_rows"):
            setattr(self, member, getattr(rule, member, getattr(Rule, member, None)))

    @classmethod
    def from_plan(cls, plan: PrivacyPlan, *args: Any, **options: Any) -> Self:
        """Not how one is made: the rule inside has its own."""
        raise ConfigError("a rule under attack is made from the section byzantine")

    def zero(self, parameters: int) -> Fold:
        """The rule's."""
        return self._rule.zero(parameters)

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """The rule's."""
        return self._rule.add(fold, updates)

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The rule's."""
        return self._rule.merge(first, second)

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """The rule's, of the fold under attack."""
        return self._rule.finish(self.attacked(fold), noise)

    def advance(self, fold: Fold, noise: Stream | None = None) -> None:
        """The rule's, of the same fold as in ``finish``."""
        self._rule.advance(self.attacked(fold), noise)  # type: ignore[arg-type]

    def attacked(self, fold: Fold) -> Fold:
        """The fold with the adversaries' rows replaced, in ascending order of client.

        Raises:
            EngineError: An attack of the user's own failed, or gave something else than a row for each adversary.
        """
        order = np.argsort(fold.arrays["clients"], kind="stable")
        arrays = {name: array[order] for name, array in fold.arrays.items()}
        clients, rows = (arrays[name] for name in _ROWS)
        theirs = np.isin(clients, self._adversaries)
        if not theirs.any() or theirs.all():
            return fold
        said = hashlib.sha256(clients.tobytes() + rows.tobytes()).hexdigest()
        rng = public_generator(self._seed, f"byzantine attack {said}")
        own = rows[theirs]
        try:
            sent = self._attack(rows[~theirs], len(own), own, rng)
        except FedSafeError:
            raise
        except Exception as error:  # a user's own code may raise anything
            raise EngineError(
                f"the attack {self._label!r} failed: {one_line(error)}; mend it, or name another"
            ) from error
        if not isinstance(sent, np.ndarray) or sent.shape != own.shape or sent.dtype.kind not in "fiu":
            raise EngineError(
                f"the attack {self._label!r} returned {_what(sent)}: it must be floats of shape {own.shape}, a row for "
                "each adversary"
            )
        replaced = rows.copy()
        replaced[theirs] = finite_rows(sent.astype(np.float64))
        return Fold(arrays={**arrays, "rows": replaced})

    def correction(self, client: int, parameters: int) -> Vector | None:
        """The rule's."""
        return self._rule.correction(client, parameters)

    def announce(self) -> Mapping[str, float]:
        """The rule's."""
        return self._rule.announce()

    def figures(self) -> Mapping[str, float]:
        """The rule's."""
        return self._rule.figures()

    def recall(self, parameters: int, noise: Callable[[int], Stream]) -> None:
        """The rule's."""
        self._rule.recall(parameters, noise)

    def state(self) -> State:
        """The rule's."""
        return self._rule.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """The rule's."""
        self._rule.restore(state)


def require_rows(rule: str, folds_rows: bool, attack: str) -> None:
    """Refuse an attack on a rule that has no rows.

    Raises:
        ConfigError: With what to use instead.
    """
    if not folds_rows:
        raise ConfigError(
            f"byzantine.attack = {attack!r} needs the update of each client, and server.aggregator = {rule!r} adds "
            'them up: use a rule over rows, such as "mean" or "median", or byzantine.poison instead'
        )


def _what(found: object) -> str:
    return (
        f"an array of {found.dtype} and shape {found.shape}"
        if isinstance(found, np.ndarray)
        else type(found).__name__
    )
