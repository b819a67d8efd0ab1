"""What an attack on the aggregation is: rows in place of the adversaries' own, from all that honest clients sent."""

from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ConfigError

Rows = NDArray[np.float64]


class Attack(Protocol):
    """Clients that do as they like: what they send in place of the updates that they trained.

    The adversary is a client, or several that act as one. They are stronger than any real one: they see every honest
    update of the round before they send, which costs nothing here. What holds against them holds against weaker ones; a
    rule that withstands the attacks that are tried is not proven to withstand others.
    """

    name: ClassVar[str]
    # What it reads beside the model, in words for a report.
    sees: ClassVar[str]

    def __call__(self, honest: Rows, adversaries: int, own: Rows, rng: np.random.Generator) -> Rows:
        """The malicious rows ``(f, parameters)``.

        Args:
            honest: ``(h, parameters)`` updates of the round's honest clients, h at least 1, by ascending client.
            adversaries: f, how many adversaries are in the round, at least 1.
            own: ``(f, parameters)`` what these trained, on their own records or poisoned ones.
            rng: Public randomness of this round alone.
        """
        ...


ALL_HONEST = "every honest update of the round"
OWN_ALONE = "their own updates alone"


def repeated(row: NDArray[np.float64], adversaries: int) -> Rows:
    """``(f, parameters)`` the same row of every adversary."""
    return np.tile(row, (adversaries, 1))


def require_strength(attack: str, option: str, value: object, *, low: float = 0.0) -> None:
    """Refuse an option of an attack that is not a finite number above ``low``.

    Raises:
        ConfigError: With what it may be.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low < value < float("inf"):  # type: ignore[operator]
        raise ConfigError(f"byzantine.attack ({attack}): {option} = {value!r}; it is a number above {low:g}")
