"""Which public group each client belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ConfigError, EngineError

# What groups with fewer clients than ``smallest`` are counted as, together.
OTHER = "other"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Membership:
    """One group for each client: public, and fixed before the first round.

    Args:
        names: Of the groups, sorted.
        of: ``(clients,)`` each client's place in ``names``.
    """

    names: tuple[str, ...]
    of: NDArray[np.int64]

    @classmethod
    def from_values(cls, values: Sequence[str], *, smallest: int = 1) -> Self:
        """Groups of clients that have the same value.

        Args:
            values: One for each client.
            smallest: Values that fewer clients have are one group together, "other", which must not be smaller itself.

        Raises:
            ConfigError: All clients are in one group, each is in one of its own, "other" is too small, or a value is
                called "other" beside values that are put together.
        """
        found, of, counts = np.unique(
            np.asarray(values, dtype=np.str_), return_inverse=True, return_counts=True
        )
        small = counts < smallest
        if small.any() and OTHER in found[~small]:
            raise ConfigError(
                f"a group is called {OTHER!r}, which is what groups of fewer than {smallest} clients are called "
                "together: rename it, or lower smallest"
            )
        merged = np.where(small, OTHER, found.astype(object)).astype(np.str_)
        names, of = np.unique(merged[of.reshape(-1)], return_inverse=True)
        if len(names) < 2:
            raise ConfigError(
                f"all {len(values)} clients are in the one group {str(names[0])!r}: with nothing to weigh, use "
                "noisy_mean, name another column, or lower smallest"
            )
        rest = int(counts[small].sum())
        if 0 < rest < smallest:
            raise ConfigError(
                f"groups of fewer than {smallest} clients have {rest} together, which is too few for a group: lower "
                f"smallest to {rest} or less, or name another column"
            )
        if len(names) == len(values):
            raise ConfigError(
                f"each of {len(values)} clients is a group of its own, and the record of a run would have a weight for "
                "each of them: name a column that several share"
            )
        return cls(names=tuple(names.tolist()), of=of.astype(np.int64))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """``(groups,)`` registered clients of each."""
        return np.bincount(self.of, minlength=len(self.names)).astype(np.int64)

    @property
    def shares(self) -> NDArray[np.float64]:
        """``(groups,)`` share of the registered clients, which sum to one."""
        shares: NDArray[np.float64] = self.sizes / len(self.of)
        return shares

    def require(self, rule: str, clients: int) -> None:
        """Refuse a plan for another population.

        Raises:
            ConfigError: Some of its clients have no group, such as those that an audit adds.
        """
        if len(self.of) != clients:
            raise ConfigError(
                f"server.aggregator ({rule}): {len(self.of)} clients have a group and {clients} are registered; an "
                "audit adds clients that have none: audit the noisy_mean, which has the same noise"
            )

    def groups_of(self, clients: NDArray[np.int64]) -> NDArray[np.int64]:
        """``(rows,)`` the group of each.

        Raises:
            EngineError: There is no such client.
        """
        if len(clients) and not (clients.min() >= 0 and clients.max() < len(self.of)):
            raise EngineError(f"an update is of a client that is none of the {len(self.of)} with a group")
        return self.of[clients]
