"""Public images beside what updates of them give away: a row for each, with and without noise."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.privacy.likeness import psnr, to_ranges
from fedsafe.data import Examples
from fedsafe.findings import picture

Array = NDArray[np.float64]

_EXAMPLES, _SIDE = 3, 64


def pictured(
    subject: Subject, rebuild: Callable[[Examples], Mapping[str, Array]], mean: Array
) -> list[list[dict[str, Any]]]:
    """A row for each of a few evaluation records: the record, what was rebuilt at each noise, and the mean image.

    Args:
        subject: Whose evaluation records are shown; none where they are not public, or no images.
        rebuild: From records to what updates of each alone give away, ``(n, *inputs)`` in parts of the range, by noise.
        mean: ``(*inputs,)`` the guess without an update, in encoded units.
    """
    shape = subject.task.schema.shape
    if not subject.shows_records or len(shape) < 2 or max(shape[-2:]) > _SIDE:
        return []
    examples = subject.evaluation.take(subject.shared_rows(_EXAMPLES))
    bounds = subject.input_bounds()
    true, middle = to_ranges(examples.x, *bounds), to_ranges(mean[None], *bounds)[0]
    rebuilt = rebuild(examples)
    if not rebuilt:
        return []
    rows = []
    for at, own in enumerate(true):
        row = [picture("record", _flat(own), low=0.0, high=1.0)]
        for noise, found in rebuilt.items():
            title = "rebuilt without noise" if noise == "none" else f"rebuilt at the noise {noise}"
            likeness = float(psnr(found[at : at + 1], true[at : at + 1])[0])
            row.append(picture(title, _flat(found[at]), low=0.0, high=1.0, note=f"{likeness:.1f} dB"))
        likeness = float(psnr(middle[None], own[None])[0])
        row.append(
            picture(
                "mean image", _flat(middle), low=0.0, high=1.0, note=f"{likeness:.1f} dB, without an update"
            )
        )
        rows.append(row)
    return rows


def _flat(values: Array) -> Array:
    """``(height, width)``: a mean over whatever comes before."""
    return np.asarray(values.reshape(-1, *values.shape[-2:]).mean(axis=0))
