"""What a comparison says in words beside its figures, and what these words do not promise."""

import pytest

from fedsafe.report.comparison_reading import choice_readings, curve_reading


def reading(key):
    curve = {"key": key, "unit": "share", "direction": "higher"}
    points = [{"epsilon": "1", "series": {}, "value": 0.5, "lost": None}]
    return curve_reading(curve, "all runs", points, several=False)


@pytest.mark.parametrize(
    ("key", "low"), [("worst group", True), ("worst clients", True), ("accuracy", False)]
)
def test_the_least_of_noisy_figures_is_said_to_lie_low(key, low):
    assert ("lies low on average" in reading(key)) == low


@pytest.mark.parametrize("found", ["2", None])
def test_the_least_of_several_budgets_is_said_to_pass_by_chance(found):
    choice = {"series": {}, "tolerance": 0.01, "knee": None, "enough": found, "trend": None}
    body = {
        "curves": [{"unit": "share"}],
        "choices": [choice],
        "settings": {"seeds": 2, "epsilons": ["1", "2", "inf"]},
    }
    (text,) = choice_readings(body)
    assert ("by chance" in text) == (found is not None)
