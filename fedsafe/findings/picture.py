"""Small pictures for a report, as plain values: what is drawn from them must need no other file."""

import base64
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ConfigError

Scale = Literal["grey", "signed"]

_MOST_PIXELS = 64 * 64


def picture(
    title: str,
    pixels: NDArray[Any],
    *,
    scale: Scale = "grey",
    low: float | None = None,
    high: float | None = None,
    note: str = "",
) -> dict[str, Any]:
    """An image, or a map over one, for ``detail["pictures"]`` of a finding on PUBLIC data.

    A picture shows a record. An assessor makes none of records that are not public, see
    `fedsafe.assess.Subject.shows_records`.

    Args:
        title: What it shows, a few words.
        pixels: ``(height, width)``, or ``(channels, height, width)``, whose channels are averaged.
        scale: "grey" from low to high; "signed" around 0, for perturbations and attributions.
        low: Value drawn black; the smallest where None. Of no use to a signed scale, which is symmetric.
        high: Value drawn white; the largest, or largest absolute one, where None.
        note: One short sentence below it.

    Returns:
        Plain values: title, height, width, scale, the values that 0 and 255 stand for, and base64 of one byte a pixel.

    Raises:
        ConfigError: It is no image, holds values that are not finite, or is larger than a report should carry.
    """
    values = np.asarray(pixels, dtype=np.float64)
    values = values.mean(axis=0) if values.ndim == 3 else values
    if values.ndim != 2 or not 0 < values.size <= _MOST_PIXELS or not np.isfinite(values).all():
        raise ConfigError(
            f"the picture {title!r} has shape {np.shape(pixels)}; give (height, width) of finite values, at most "
            f"{_MOST_PIXELS} of them"
        )
    if scale == "signed":
        top = float(np.abs(values).max()) if high is None else float(high)
        bottom = -top
    else:
        bottom = float(values.min()) if low is None else float(low)
        top = float(values.max()) if high is None else float(high)
    width = top - bottom
    shares = (values - bottom) / width if width > 0 else np.full_like(values, 0.5)
    levels = np.clip(np.rint(255 * shares), 0, 255).astype(np.uint8)
    return {
        "title": title,
        "height": int(values.shape[0]),
        "width": int(values.shape[1]),
        "scale": scale,
        "low": bottom,
        "high": top,
        "note": note,
        "bytes": base64.b64encode(levels.tobytes()).decode("ascii"),
    }
