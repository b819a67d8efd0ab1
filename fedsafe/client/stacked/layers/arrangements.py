"""Contributions made of others: by group of channels, in another order, several together, or without norms."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fedsafe.client.stacked.layers.base import Contribution


class Arranged:
    """A contribution whose sums are put in another order.

    Args:
        inner: The contribution.
        order: From what it gives, ``(rows, ...)``, to what this one gives, ``(rows, ...)``.
    """

    def __init__(self, inner: Contribution, order: Callable[[Sequence[Tensor]], tuple[Tensor, ...]]) -> None:
        self._inner, self._order = inner, order

    @property
    def squares(self) -> Tensor:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return self._inner.squares

    @property
    def slack(self) -> Tensor | float:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return self._inner.slack

    @property
    def mass(self) -> Tensor | float:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return self._inner.mass

    def written_out(self) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        written = self._inner.written_out()
        ordered = self._order([part.flatten(0, 1) for part in written])
        return tuple(torch.unflatten(part, 0, written[0].shape[:2]) for part in ordered)

    def summed(self, factors: Tensor, keep: Tensor, clean: bool) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return self._order(self._inner.summed(factors, keep, clean))


class Grouped:
    """One of ``clients`` whose channels come in groups, each of which was treated as a client.

    Args:
        inner: Of ``clients * groups``.
        groups: Of each client, whose outputs lie together.
    """

    def __init__(self, inner: Contribution, groups: int) -> None:
        self._inner, self._groups = inner, groups

    @property
    def squares(self) -> Tensor:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        squares: Tensor = torch.unflatten(self._inner.squares, 0, (-1, self._groups)).sum(1)
        return squares

    @property
    def slack(self) -> Tensor | float:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return self._over_groups(self._inner.slack)

    @property
    def mass(self) -> Tensor | float:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return self._over_groups(self._inner.mass)

    def _over_groups(self, lengths: Tensor | float) -> Tensor | float:
        # Lengths of orthogonal parts: their sum is no shorter than the whole.
        if not isinstance(lengths, Tensor):
            return lengths
        whole: Tensor = torch.unflatten(lengths, 0, (-1, self._groups)).sum(1)
        return whole

    def written_out(self) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        parts = [torch.unflatten(part, 0, (-1, self._groups)) for part in self._inner.written_out()]
        return tuple(part.movedim(1, 2).flatten(2, 3) for part in parts)

    def summed(self, factors: Tensor, keep: Tensor, clean: bool) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        of_groups = [part.repeat_interleave(self._groups, 0) for part in (factors, keep)]
        sums = self._inner.summed(of_groups[0], of_groups[1], clean)
        return tuple(torch.unflatten(part, 0, (-1, self._groups)).flatten(1, 2) for part in sums)


class Several:
    """Contributions to different parameters of one layer.

    Args:
        parts: At least one.
    """

    def __init__(self, *parts: Contribution) -> None:
        self._parts = parts

    @property
    def squares(self) -> Tensor:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return torch.stack([part.squares for part in self._parts]).sum(0)

    @property
    def slack(self) -> Tensor | float:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return sum((part.slack for part in self._parts), 0.0)

    @property
    def mass(self) -> Tensor | float:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return sum((part.mass for part in self._parts), 0.0)

    def written_out(self) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return tuple(values for part in self._parts for values in part.written_out())

    def summed(self, factors: Tensor, keep: Tensor, clean: bool) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return tuple(values for part in self._parts for values in part.summed(factors, keep, clean))


class Unmeasured:
    """Sums without norms.

    Args:
        sums: From factors ``(clients, batch)`` to one sum ``(clients, ...)`` for each parameter. An example whose
            factor is zero must not be read.
    """

    slack = 0.0
    mass = 0.0

    def __init__(self, sums: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        self._sums = sums

    @property
    def squares(self) -> Tensor:
        """Not there."""
        raise NotImplementedError("norms were not wanted")

    def written_out(self) -> tuple[Tensor, ...]:
        """Not there."""
        raise NotImplementedError("norms were not wanted")

    def summed(self, factors: Tensor, keep: Tensor, clean: bool) -> tuple[Tensor, ...]:
        """See :class:`~fedsafe.client.stacked.layers.base.Contribution`."""
        return self._sums(factors)
