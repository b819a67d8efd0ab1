"""Mimicry: adversaries who send an honest update, one that makes the clients look less alike than they are."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.attacks.base import ALL_HONEST, Rows, repeated
from fedsafe.errors import ConfigError


@final
@dataclass(frozen=True, kw_only=True)
class Mimic:
    """All send a copy of the honest row farthest out along the honest rows' main direction (Karimireddy et al., 2022).

    Nothing about such a row is suspicious; where clients hold unlike data, it outweighs the others. The authors find
    the direction in a first phase and copy one client ever after; here cohorts change, so each round finds its own, and
    measures from the honest mean, on either side of it.

    Args:
        client: Position among the round's honest rows of the one that is copied instead, from 0; beyond the last, the
            last.
    """

    client: int | None = None
    name: ClassVar[str] = "mimic"
    sees: ClassVar[str] = ALL_HONEST

    def __post_init__(self) -> None:
        """Refuse a position that is none."""
        if self.client is not None and (
            not isinstance(self.client, int) or isinstance(self.client, bool) or self.client < 0
        ):
            raise ConfigError(
                f"byzantine.attack (mimic): client = {self.client!r}; it is a whole number of at least 0"
            )

    def __call__(self, honest: Rows, adversaries: int, own: Rows, rng: np.random.Generator) -> Rows:
        """Copies of one honest row."""
        position = farthest_out(honest) if self.client is None else min(self.client, len(honest) - 1)
        return repeated(honest[position], adversaries)


def farthest_out(honest: Rows) -> int:
    """Position of the row with the largest projection, in size, onto the first principal direction.

    Args:
        honest: ``(h, parameters)``.
    """
    apart = honest - honest.mean(axis=0)
    # The projections onto the first principal direction are the first eigenvector of the products, but for a factor.
    vectors: NDArray[np.float64] = np.linalg.eigh(apart @ apart.T)[1]
    return int(np.argmax(np.abs(vectors[:, -1])))
