"""The pictures that findings carry, as images inside the page; readable in grey, since they are grey."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from fedsafe.records import Json
from fedsafe.report import formats

# What the pictures of a metric show, and how to read them: its name is about a number.
_BROKEN = (
    "Each example as it is, what the attack adds (grey nothing, white more, black less), and their sum, "
    "with the class that the model then gives."
)
_MAPS = (
    "White counts for the class that the model gives, black against it, grey for nothing; each map has its "
    "own scale. The last is a random one: an explanation that looks no better says nothing."
)
_SHOWN: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "robustness.attacked_accuracy": ("Examples that an attack broke", _BROKEN),
        "corruptions.mean_error": (
            "One example under each corruption",
            "Below each picture, the class that the model gives and the true one.",
        ),
        "interpretability.sparseness": ("What each explanation points at", _MAPS),
    }
)


@dataclass(frozen=True, kw_only=True)
class Image:
    """One picture.

    Attributes:
        title: What it shows.
        note: One short sentence, or "".
        uri: A PNG as a ``data:`` address.
        reading: What black and white stand for, for people who cannot see it too.
    """

    title: str
    note: str
    uri: str
    reading: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures of one finding.

    Attributes:
        title: What they show, or assessor and metric.
        where: The slice, in words.
        caption: How to read the pictures, from the finding, or "".
        rows: Rows of images.
    """

    title: str
    where: str
    caption: str
    rows: tuple[tuple[Image, ...], ...]


def galleries(findings: Sequence[Json], assessors: Sequence[str]) -> list[Gallery]:
    """The pictures of some assessors' findings; what is no picture is left out, as a record may be newer than this.

    Args:
        findings: Lines of ``findings.jsonl``.
        assessors: Whose.
    """
    found = []
    for finding in findings:
        detail = finding.get("detail") or {}
        drawn = detail.get("pictures")
        if finding.get("assessor") not in assessors or not isinstance(drawn, list) or not drawn:
            continue
        rows = [row if isinstance(row, list) else [row] for row in drawn]
        if all(len(row) == 1 for row in rows):
            rows = [[row[0] for row in rows]]
        images = tuple(tuple(image for entry in row if (image := _image(entry)) is not None) for row in rows)
        if any(images):
            metric = str(finding["metric"])
            area = str(finding.get("assessor")).replace("_", " ").capitalize()
            heading, reading = _SHOWN.get(metric, (f"{area}: {formats.title(metric).lower()}", ""))
            found.append(
                Gallery(
                    title=heading,
                    where=formats.where(finding.get("where")),
                    caption=str(detail.get("pictures_caption") or reading),
                    rows=tuple(row for row in images if row),
                )
            )
    return found


def _image(entry: Any) -> Image | None:
    if not isinstance(entry, Mapping):
        return None
    try:
        height, width = int(entry["height"]), int(entry["width"])
        levels = np.frombuffer(base64.b64decode(entry["bytes"]), dtype=np.uint8).reshape(height, width)
        low, high = float(entry["low"]), float(entry["high"])
    except (KeyError, TypeError, ValueError):
        return None
    ends = f"black {formats.number(low)}, white {formats.number(high)}"
    return Image(
        title=str(entry.get("title") or ""),
        note=str(entry.get("note") or ""),
        uri=_png(levels),
        reading=f"{ends}, grey 0" if entry.get("scale") == "signed" else ends,
    )


def _png(levels: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    from matplotlib import image

    body = io.BytesIO()
    image.imsave(
        body, levels, format="png", cmap="gray", vmin=0, vmax=255, pil_kwargs={"optimize": True}, metadata={}
    )
    return "data:image/png;base64," + base64.b64encode(body.getvalue()).decode("ascii")
