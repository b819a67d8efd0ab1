"""The curves of a run in progress: gaps where nothing was finite, nothing outside the box, text as text."""

import re

import pytest

from fedsafe.ui.curves import Curve, draw


def curve(values, **changes):
    given = {"title": "accuracy, %", "rounds": range(1, len(values) + 1), "values": values, "last": 10}
    return str(draw(Curve(**{**given, **changes})))


def points(svg):
    return [tuple(map(float, pair)) for pair in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path(svg))]


def path(svg):
    return re.search(r'<path class="line" d="([^"]*)"', svg)[1]


def test_more_is_higher_and_later_is_further_right():
    found = points(curve([1.0, 2.0, 4.0, 3.0]))
    assert [x for x, _ in found] == sorted(x for x, _ in found)
    heights = [-y for _, y in found]
    assert heights[0] < heights[1] < heights[3] < heights[2]
    # Three tenths of the way to the planned last round.
    assert found[-1][0] == pytest.approx(46 + (460 - 56) * 3 / 9, abs=0.1)


def test_what_was_not_finite_is_a_gap():
    assert path(curve([1.0, None, 2.0, float("inf"), float("nan"), 3.0])).count("M") == 3


@pytest.mark.parametrize(
    "values",
    [[], [None], [0.0], [5.0], [3.0] * 4, [1e-12, 2e-12], [-1e12, 1e12], [1e300, 1e301], [0.1] * 100],
)
def test_everything_stays_inside_the_box(values):
    svg = curve(values, lines={"chance": 2.0}, intervals={1: (0.0, 9.0)})
    for x, y in points(svg):
        assert 0 <= x <= 460
        assert 0 <= y <= 232
    numbers = [float(value) for value in re.findall(r'\b[xy][12]?="(-?[\d.]+)"', svg)]
    assert all(-1 <= number <= 461 for number in numbers)


def test_ticks_are_round_numbers():
    svg = curve([0.0, 83.0])
    assert re.findall(r'class="end"[^>]*>([^<]*)', svg) == ["0", "20", "40", "60", "80"]
    assert re.findall(r'class="middle"[^>]*>(\d+)<', svg) == ["2", "4", "6", "8", "10"]


def test_names_are_text():
    svg = curve([1.0, 2.0], title="<b>&", lines={"<i>": 1.5})
    assert "<b>" not in svg
    assert "&lt;b&gt;&amp;" in svg
    assert "&lt;i&gt;" in svg
