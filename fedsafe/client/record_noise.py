"""The noise of a client's step on a public grid, where nothing of a record is left in the last bits.

In floating point the values that a sum with noise can take depend on the sum: an observer may tell from one output's
last bits which of two sums it had (Mironov 2012; Jin et al. 2022 did it to DP-SGD). Here the clipped sum is rounded to
multiples of ``2^-bits`` before noise that is rounded to the same grid is added, in 64-bit integers. What is released is
a function of that exact sum alone, and the noise reaches every multiple within nine standard deviations, whatever the
sum.

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
toward zero by itself, where it cannot grow, and add integers.
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
_AT_ONCE = 2**15


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
    # Doubles hold every whole number up to 2^53; the sum and its noise together must fit 63 bits.
    if deviation * _LONGEST >= 2.0**53 or records * way.clip * units >= 2.0**62:
        raise ConfigError(
            f"grid_bits = {way.grid_bits} is too fine for clip {way.clip:g}, noise {way.noise:g} and {records} "
            f"records: {record_grid_bits(way.clip, parameters)} is fine enough"
        )


def to_record_grid(values: Tensor, bits: Sequence[int]) -> Tensor:
    """Round toward zero to whole multiples of ``2^-bits``: 64-bit integers of the same shape.

    Args:
        values: ``(rows, parameters)``, finite.
        bits: Of each row, or one for all.
    """
    # Powers of two are made where they are exact, and a product with one only moves the exponent.
    units = values.new_tensor([2.0**own for own in bits], dtype=torch.float64).unsqueeze(1)
    return values.double().mul(units).trunc_().to(torch.int64)


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
    units = torch.tensor([2.0**-own for own in bits], dtype=torch.float64, device=sums.device)
    return sums.add_(noise.to(sums.device)).double().mul_(units.unsqueeze(1))


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
) -> NDArray[np.int64]:
    """``(len(streams), count)`` normal draws of each row's standard deviation, rounded to whole numbers.

    Box and Muller (1958) in double precision on 63 random bits for each radius, so that the tail reaches 9.4 standard
    deviations, and 53 for each angle. There is no rejection, so the time tells nothing of what was drawn. Row i
    depends on stream i alone.

    Args:
        streams: One for each row.
        count: Draws of each.
        deviations: Standard deviation of each row, in units.
    """
    out = np.empty((len(streams), count), np.int64)
    scales = np.asarray(deviations, np.float64)[:, None]
    for left in range(0, count, _BLOCK):
        width = min(_BLOCK, count - left)
        rows = max(1, _AT_ONCE // width)
        for top in range(0, len(streams), rows):
            _fill(
                streams[top : top + rows],
                scales[top : top + rows],
                out[top : top + rows, left : left + width],
            )
    return out


def _fill(streams: Sequence[Stream], scales: NDArray[np.float64], out: NDArray[np.int64]) -> None:
    """Write the next draws of each stream to ``out`` (streams, count)."""
    count = out.shape[1]
    pairs, rest = (count + 1) // 2, count // 2
    words = words_of(streams, 2 * pairs)
    # Signed words convert to doubles in one instruction. Half a unit more keeps the logarithm finite.
    radius = (words[:, :pairs] >> np.uint64(1)).view(np.int64).astype(np.float64)
    radius += 0.5
    radius *= 2.0**-63
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    radius *= scales
    angle = (words[:, pairs:] >> np.uint64(11)).view(np.int64).astype(np.float64)
    angle *= 2.0 * np.pi * 2.0**-53
    curve = np.cos(angle)
    curve *= radius
    np.copyto(out[:, :pairs], np.rint(curve, out=curve), casting="unsafe")
    np.sin(angle, out=curve)
    curve *= radius
    np.copyto(out[:, pairs:], np.rint(curve, out=curve)[:, :rest], casting="unsafe")
