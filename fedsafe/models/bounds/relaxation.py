"""Linear functions of a network's values, bounded from below by going back to the input step by step."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fedsafe.models.bounds.activations import Elementwise, MaxPooling, Rectifier
from fedsafe.models.bounds.network import Network
from fedsafe.models.bounds.operations import Bounds, Reshape, Slope
from fedsafe.models.bounds.region import InputRegion
from fedsafe.models.bounds.rounding import Rounding
from fedsafe.models.bounds.windows import Window, backward, part, path

# Coefficients that are held at once: few enough for the cache.
_ENTRIES = 1 << 18
# Entries of one place of an image that are bounded at once.
_PAIRS = 256


def bends(network: Network, number: int) -> bool:
    """Whether a value is worth a bound of its own: it is affine in what comes before, and an activation reads it."""
    if isinstance(network.steps[number - 1].operation, Elementwise | MaxPooling | Reshape):
        return False
    readers = [step for step in network.steps if number in step.inputs]
    first = all(i == 0 for i in network.steps[number - 1].inputs)  # exact by intervals
    return not first and any(isinstance(step.operation, Elementwise | MaxPooling) for step in readers)


def spread(coefficients: dict[int, Tensor], inputs: tuple[int, ...], parts: tuple[Tensor, ...]) -> None:
    """Adds the coefficients of a step's inputs to those that other steps gave them."""
    for source, one in zip(inputs, parts, strict=True):
        coefficients[source] = coefficients[source] + one if source in coefficients else one


def charge(rows: Tensor, room: Tensor, owner: Tensor) -> Tensor:
    """``(pairs,)`` how far linear functions may be off, if each entry of a value ``(n, *shape)`` is, by its room.

    A room that is one number is that of all entries, which saves time where it is as small as the bound's own rounding.
    """
    # Its own sum rounds off far less than a millionth of it.
    if room.ndim == 0:
        size: Tensor = torch.linalg.vector_norm(rows.flatten(1), ord=1, dim=1)
        return size * room * (1 + 1e-6)
    return torch.einsum("pi,pi->p", rows.abs().flatten(1), room[owner].flatten(1)) * (1 + 1e-6)


class Relaxed:
    """What each step is replaced with on the way back, for one way to choose lower lines."""

    def __init__(
        self, network: Network, region: InputRegion, slope: Slope, rounding: Rounding | None = None
    ) -> None:
        self.network, self.region, self.slope, self.rounding = network, region, slope, rounding
        self._relaxations: dict[int, Any] = {}
        # What each value, the input included, may be off by rounding.
        self._rooms: dict[int, Tensor] = {} if rounding is None else {0: rounding.start(region).max()}

    def learn(self, number: int, inputs: tuple[Bounds, ...]) -> None:
        """The lines of the step that makes a value, and what it rounds off."""
        operation = self.network.steps[number - 1].operation
        self._relaxations[number] = operation.relax(inputs, self.slope)
        if self.rounding is not None:
            room = self.rounding.step(operation, inputs)
            exact = isinstance(
                operation, Rectifier | MaxPooling | Reshape
            )  # what the model rounds off is nothing
            self._rooms[number] = room.max() if exact else room

    def least(self, number: int, coefficients: Tensor, owner: Tensor) -> Tensor:
        """``(pairs,)`` lower bounds of linear functions ``(pairs, *shape)`` of a value, a few at a time."""
        largest = max(torch.Size(shape).numel() for shape in self.network.shapes[: number + 1])
        size = max(1, _ENTRIES // largest)
        parts = [
            self._least(number, rows, whose)
            for rows, whose in zip(torch.split(coefficients, size), torch.split(owner, size), strict=True)
        ]
        return torch.cat(parts)

    def _least(self, number: int, rows: Tensor, owner: Tensor, *, exact: bool = True) -> Tensor:
        coefficients, constant = {number: rows}, rows.new_zeros(len(rows))
        for place in range(number, 0, -1):
            found = coefficients.pop(place, None)
            if found is not None:
                step = self.network.steps[place - 1]
                if place in self._rooms:
                    constant = constant - charge(found, self._rooms[place], owner)
                parts, more = step.operation.backward(found, owner, self._relaxations.get(place))
                constant = constant + more
                spread(coefficients, step.inputs, parts)
        if 0 not in coefficients:
            return constant
        if self._rooms:
            constant = constant - charge(coefficients[0], self._rooms[0], owner)
        return constant + self.region.least(coefficients[0], owner, exact=exact)

    def refined(self, number: int, bounds: Bounds) -> Bounds:
        """Tighter bounds of a value where they matter."""
        low, high = (end.flatten(1).clone() for end in bounds)
        # A ReLU is exact where the sign is known; anything else gains by every bit.
        readers = [step.operation for step in self.network.steps if number in step.inputs]
        signs = all(isinstance(operation, Rectifier) for operation in readers)
        open_ = (low < 0) & (high > 0) if signs else low < high
        owner, entry = torch.nonzero(open_, as_tuple=True)
        for whose, which, least in self._of_entries(number, owner, entry):
            low[whose, which] = torch.maximum(low[whose, which], least[: len(which)])
            high[whose, which] = torch.minimum(high[whose, which], -least[len(which) :])
        return low.reshape(bounds[0].shape), high.reshape(bounds[1].shape)

    def _of_entries(
        self, number: int, owner: Tensor, entry: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Owners and entries in parts, with lower bounds of the entries and then of their negatives."""
        shape, steps = self.network.shapes[number], path(self.network, number)
        if len(shape) != 3 or not steps:
            largest = max(torch.Size(s).numel() for s in self.network.shapes[: number + 1])
            size = max(1, _ENTRIES // (2 * largest))
            for whose, which in zip(torch.split(owner, size), torch.split(entry, size), strict=True):
                rows = _one_hot(which, torch.Size(shape).numel(), self.region.clean.dtype).reshape(-1, *shape)
                both = torch.cat([rows, -rows])
                yield whose, which, self._least(number, both, whose.repeat(2), exact=False)
            return
        channel, place = entry // (shape[1] * shape[2]), entry % (shape[1] * shape[2])
        for spot in torch.unique(place).tolist():
            (there,) = torch.nonzero(place == spot, as_tuple=True)
            row, column = divmod(spot, shape[2])
            window = Window(row, row + 1, column, column + 1)
            for some in torch.split(there, _PAIRS):
                rows = _one_hot(channel[some], shape[0], self.region.clean.dtype)[:, :, None, None]
                least = self._within(steps, torch.cat([rows, -rows]), owner[some].repeat(2), window)
                yield owner[some], entry[some], least

    def _within(self, steps: list[int], rows: Tensor, owner: Tensor, window: Window) -> Tensor:
        constant = rows.new_zeros(len(rows))
        for number in steps:
            operation = self.network.steps[number - 1].operation
            if number in self._rooms:
                room = self._rooms[number]
                constant = constant - charge(rows, window.of(room) if room.ndim else room, owner)
            rows, more, window = backward(operation, rows, owner, self._relaxations.get(number), window)
            constant = constant + more
        if self._rooms:
            constant = constant - charge(rows, self._rooms[0], owner)
        return constant + part(self.region, window).least(rows, owner, exact=False)


def _one_hot(which: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    rows = torch.zeros(len(which), width, dtype=dtype, device=which.device)
    rows[torch.arange(len(which), device=which.device), which] = 1.0
    return rows
