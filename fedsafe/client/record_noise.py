"""The noise of a client's step on a public grid, where nothing of a record is left in the last bits.

In floating point the values that a sum with noise can take depend on the sum: an observer may tell from one output's
last bits which of two sums it had (Mironov 2012; Jin et al. 2022 did it to DP-SGD). Here the clipped sum is rounded to
multiples of ``2^-bits``, and noise that is rounded to the same grid is added, in whole numbers below 2^53, which double
precision adds exactly. What is released is a function of that exact sum alone, and the noise reaches every multiple
within nine standard deviations, whatever the sum.

Guarantees:
    Rounding noise to the grid that the sum lies on is rounding what the Gaussian mechanism gives, which costs nothing.
    Rounding the sum does: each of its d values moves by less than one unit, so that two neighbouring sums are up to
    ``clip + sqrt(d) 2^-bits`` apart. The noise's standard deviation is the multiplier times that, exactly, for any grid
    (:func:`sensitivity_on_grid`); :func:`record_grid_bits` gives one that costs 2^-16 of the noise. Under replace-one
    adjacency both terms are at most doubled.

    ==========================  ================================================
    case                        result
    ==========================  ================================================
    an empty batch              noise alone
    a sum of exactly zero       noise alone
    no noise                    nothing is rounded: there is nothing to protect
    bits too many to be exact   ConfigError, before any record is read
    ==========================  ================================================

What this does not prove is that the sum before rounding is the exact one: the stacked engine adds in single precision,
within the clip's margin (``stacked/engine.py``). The trainers that write out each example's gradient round each
toward zero by itself, where it cannot grow, and add whole numbers.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.client.trainer import LocalTraining
from fedsafe.errors import ConfigError
from fedsafe.rng import Stream, words_of

# A grid unit times the root of the number of parameters, over the clip: what a rounded sum can move besides.
_COARSEST = 2.0**-16
# The longest draw: sqrt(-2 log 2^-64), from the smallest of 2^63 radii.
_LONGEST = 9.42
# The draws of a row that come from one piece of its stream: to change it changes what a stream gives.
_BLOCK = 8192
# Draws that are in the cache at once.
_AT_ONCE = 2**14
# A turn's first bits choose its place in a table; what is left of it is so small that a few terms of a series hold.
_PLACES, _REST = 12, 41
_TABLE = 2.0 * np.pi * (np.arange(2**_PLACES) + 0.5) / 2**_PLACES
_COSINES, _SINES = np.cos(_TABLE), np.sin(_TABLE)


def record_grid_bits(clip: float, parameters: int) -> int:
    """The coarsest public grid whose rounding adds at most ``2^-16`` of the noise: its unit is ``2^-bits``.

    The coarser the grid, the more of the noise's random bits go into each of its values.

    Args:
        clip: Bound on one example's gradient.
        parameters: How many values a step's sum has.
    """
    return math.ceil(math.log2(math.sqrt(parameters) / (clip * _COARSEST)))


def sensitivity_on_grid(clip: float, parameters: int, bits: int) -> float:
    """How far two rounded sums can be apart whose batches differ in one example that is there or is not.

    Each of the d rounded differences is less than one unit longer than the exact one, so the triangle inequality gives
    ``clip + sqrt(d) 2^-bits``.

    Args:
        clip: Bound on one example's gradient.
        parameters: How many values the sum has, d.
        bits: Of the grid.
    """
    return clip + math.sqrt(parameters) * 2.0**-bits


def require_exact(way: LocalTraining, records: int, parameters: int) -> None:
    """Refuse a grid on which a sum or its noise would not be exact.

    Args:
        way: How the client trains.
        records: How many records it has: the most that can be in a batch.
        parameters: How many values a sum has.

    Raises:
        ConfigError: The grid is too fine for the noise or for the sum, or there is no clip.
    """
    if way.grid_bits is None:
        return
    if not math.isfinite(way.clip):
        raise ConfigError(f"grid_bits = {way.grid_bits} with clip = {way.clip}: a sum on a grid needs a clip")
    units = 2.0**way.grid_bits
    deviation = way.noise * sensitivity_on_grid(way.clip, parameters, way.grid_bits) * units
    # Double precision holds every whole number up to 2^53.
    if deviation * _LONGEST + records * way.clip * units >= 2.0**53:
        raise ConfigError(
            f"grid_bits = {way.grid_bits} is too fine for clip {way.clip:g}, noise {way.noise:g} and {records} "
            f"records: {record_grid_bits(way.clip, parameters)} is fine enough"
        )


def to_record_grid(values: Tensor, bits: Sequence[int]) -> Tensor:
    """Round toward zero to multiples of ``2^-bits``: whole numbers of them, of the same shape, in double precision.

    Args:
        values: ``(rows, parameters)``, finite.
        bits: Of each row, or one for all.
    """
    # Powers of two are made where they are exact, and a product with one only moves the exponent.
    units = values.new_tensor([2.0**own for own in bits], dtype=torch.float64).unsqueeze(1)
    return values.to(torch.float64, copy=True).mul_(units).trunc_()


def noised_on_grid(sums: Tensor, ways: Sequence[LocalTraining], streams: Sequence[Stream]) -> Tensor:
    """``(rows, parameters)`` doubles: each row's sum and its noise, multiples of its grid's unit.

    Args:
        sums: ``(rows, parameters)`` from :func:`to_record_grid`; it is written over.
        ways: How each row's client trains; each has a grid.
        streams: Of each row's noise.
    """
    bits = grids_of(ways)
    deviations = [
        way.noise * sensitivity_on_grid(way.clip, sums.shape[1], own) * 2.0**own
        for way, own in zip(ways, bits, strict=True)
    ]
    noise = torch.from_numpy(whole_normal_rows(streams, sums.shape[1], deviations))
    units = sums.new_tensor([2.0**-own for own in bits]).unsqueeze(1)
    return sums.add_(noise.to(sums.device)).mul_(units)


def grids_of(ways: Sequence[LocalTraining]) -> list[int]:
    """The grid of each row.

    Raises:
        ConfigError: One has none.
    """
    bits = [way.grid_bits for way in ways if way.grid_bits is not None]
    if len(bits) < len(ways):
        raise ConfigError("grid_bits = None: noise on a grid needs a grid, such as record_grid_bits gives")
    return bits


def whole_normal_rows(
    streams: Sequence[Stream], count: int, deviations: Sequence[float]
) -> NDArray[np.float64]:
    """``(len(streams), count)`` normal draws of each row's standard deviation, rounded to whole numbers.

    Box and Muller (1958) in double precision on 63 random bits for each radius, so that the tail reaches 9.4 standard
    deviations, and 53 for each angle. There is no rejection, so the time tells nothing of what was drawn. Row i
    depends on stream i alone.

    Args:
        streams: One for each row.
        count: Draws of each.
        deviations: Standard deviation of each row, in units.
    """
    out = np.empty((len(streams), count))
    scales = np.asarray(deviations, np.float64)[:, None]
    for left in range(0, count, _BLOCK):
        width = min(_BLOCK, count - left)
        rows = min(max(1, len(streams)), max(1, _AT_ONCE // width))
        block = _WholeBlock(rows, width)
        for top in range(0, len(streams), rows):
            some = slice(top, top + rows)
            block.fill(streams[some], scales[some], out[some, left : left + width])
    return out


class _WholeBlock:
    """Memory for so many draws of so many streams at once, used again and again.

    Args:
        rows: Streams.
        count: Draws of each.
    """

    def __init__(self, rows: int, count: int) -> None:
        self._pairs, self._rest = (count + 1) // 2, count // 2
        self._parts = [np.empty((rows, self._pairs)) for _ in range(6)]
        self._places = np.empty((rows, self._pairs), np.int64)

    def fill(self, streams: Sequence[Stream], scales: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        """Write the next draws of each stream to ``out`` (streams, count)."""
        words = words_of(streams, 2 * self._pairs)
        radius, cosine, sine, square, first, second = (part[: len(words)] for part in self._parts)
        places = self._places[: len(words)]
        self._turns(words[:, self._pairs :], places, cosine, sine, square)
        # Signed words convert to doubles in one instruction. Half a unit more keeps the logarithm finite.
        np.right_shift(words[:, : self._pairs], np.uint64(1), out=places.view(np.uint64))
        np.copyto(radius, places)
        radius += 0.5
        radius *= 2.0**-63
        np.log(radius, out=radius)
        radius *= -2.0
        np.sqrt(radius, out=radius)
        radius *= scales
        np.multiply(radius, cosine, out=first)
        np.multiply(radius, sine, out=second)
        np.rint(first, out=out[:, : self._pairs])
        np.rint(second[:, : self._rest], out=out[:, self._pairs :])

    @staticmethod
    def _turns(
        words: NDArray[np.uint64],
        places: NDArray[np.int64],
        cosine: NDArray[np.float64],
        sine: NDArray[np.float64],
        small: NDArray[np.float64],
    ) -> None:
        """Cosine and sine of the angles ``2 pi (word >> 11) / 2^53``, to a few units of 2^-53.

        Sums and products alone, which every processor rounds alike; a library's own functions take ten times as long.
        """
        rest = np.right_shift(words, np.uint64(11), out=places.view(np.uint64))
        rest &= np.uint64(2**_REST - 1)
        turn = places.astype(np.float64)
        turn -= 2.0 ** (_REST - 1)
        turn *= 2.0 * np.pi * 2.0**-53
        np.right_shift(words, np.uint64(64 - _PLACES), out=places.view(np.uint64))
        square = turn * turn
        # At most 7.7e-4: the next terms are 2^-58 and less.
        small_sine = square * (-1.0 / 6.0)
        small_sine += 1.0
        small_sine *= turn
        np.multiply(square, 1.0 / 24.0, out=small)
        small -= 0.5
        small *= square
        small += 1.0
        table_cosine, table_sine = _COSINES[places], _SINES[places]
        np.multiply(table_cosine, small, out=cosine)
        np.multiply(table_sine, small, out=sine)
        table_sine *= small_sine
        cosine -= table_sine
        table_cosine *= small_sine
        sine += table_cosine
