"""The curves of a run in progress, as SVG that a style sheet colours.

Drawn without matplotlib: a curve is drawn again with every round, beside the training that needs the processor.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 460.0, 232.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 30.0, 38.0


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A number against rounds.

    Attributes:
        title: What the vertical axis shows, its unit, and which way is better.
        rounds: Numbers of the rounds.
        values: One for each; None is drawn as a gap.
        last: Of the horizontal axis: the planned rounds.
        floor: What the vertical axis starts at; None where the numbers decide.
        lines: Reference values drawn as dashed lines, by name.
        intervals: Confidence intervals, by round.
    """

    title: str
    rounds: Sequence[int]
    values: Sequence[float | None]
    last: int
    floor: float | None = None
    lines: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[int, tuple[float, float]] = field(default_factory=dict)


def draw(curve: Curve) -> Markup:
    """One ``<svg>`` element; what it shows is said in words by the caption beside it."""
    known = [
        (number, float(value))
        for number, value in zip(curve.rounds, curve.values, strict=True)
        if value is not None and math.isfinite(value)
    ]
    low, high = _range(curve, [value for _, value in known])
    first = min(1 if curve.floor is None else 0, *curve.rounds) if curve.rounds else 0
    last = max([first + 1, curve.last, *curve.rounds])

    def x(number: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (number - first) / (last - first)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)

    left, right, middle = _LEFT, _WIDTH - _RIGHT, (_LEFT + _WIDTH - _RIGHT) / 2
    parts = [_text("title", 0.0, 14.0, curve.title)]
    for tick in _ticks(low, high, 5):
        parts += [
            _line("grid", left, right, y(tick), y(tick)),
            _text("end", left - 6, y(tick) + 4, f"{tick:.6g}"),
        ]
    parts += [
        _text("middle", x(tick), _HEIGHT - 21, f"{tick:g}") for tick in _ticks(first, last, 6, whole=True)
    ]
    parts.append(_text("middle", middle, _HEIGHT - 5, f"round, up to the planned {last}"))
    for name, value in curve.lines.items():
        if low <= value <= high:
            parts.append(_line("reference", left, right, y(value), y(value)))
            parts.append(_text("end reference", right, y(value) - 4, name))
    for number, ends in curve.intervals.items():
        lower, upper = (min(max(end, low), high) for end in ends)
        parts.append(_line("interval", x(number), x(number), y(lower), y(upper)))
    parts.append(f'<path class="line" d="{_path(curve, x, y)}"/>')
    if known:
        parts.append(f'<circle class="dot" cx="{x(known[-1][0]):.1f}" cy="{y(known[-1][1]):.1f}" r="3.5"/>')
    box = f"0 0 {_WIDTH:g} {_HEIGHT:g}"
    # Every text in it is escaped above.
    return Markup(f'<svg class="curve" viewBox="{box}" aria-hidden="true">{"".join(parts)}</svg>')  # noqa: S704


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _line(kind: str, left: float, right: float, top: float, bottom: float) -> str:
    return f'<line class="{kind}" x1="{left:.1f}" x2="{right:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'


def _path(curve: Curve, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    words, pen = [], "M"
    for number, value in zip(curve.rounds, curve.values, strict=True):
        if value is None or not math.isfinite(value):
            pen = "M"
            continue
        words.append(f"{pen}{x(number):.1f} {y(float(value)):.1f}")
        pen = "L"
    return "".join(words)


def _range(curve: Curve, values: Sequence[float]) -> tuple[float, float]:
    ends = [end for pair in curve.intervals.values() for end in pair if math.isfinite(end)]
    shown = [*values, *ends, *(value for value in curve.lines.values() if math.isfinite(value))]
    if curve.floor is not None:
        shown.append(curve.floor)
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    room = 0.09 * (high - low) or abs(high) * 0.1 or 1.0
    return (low if curve.floor is not None else low - room), high + room


def _ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Round numbers between two ends: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1.0, 2.0, 5.0, 10.0) if size * factor >= rough * 0.999)
    if whole:
        step = max(1.0, step)
    return [
        step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]
