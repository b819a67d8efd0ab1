import numpy as np
import pytest
from scipy import stats

from fedsafe.errors import CalibrationError, ConfigError
from fedsafe.serve.conformal import Calibration, Surprise, benjamini_hochberg


def slow_p(known, score):
    return (1 + sum(other >= score for other in known)) / (len(known) + 1)


def test_p_values_are_those_of_the_definition_ties_and_missing_numbers_included():
    rng = np.random.default_rng(0)
    known = rng.integers(0, 10, 50).astype(float)
    new = np.array([*range(-1, 12), np.nan, np.inf, -np.inf])
    found = Calibration.of(known).p_values(new)
    expected = [slow_p(known, score) if not np.isnan(score) else 1 / 51 for score in new]
    assert np.allclose(found, expected)


def test_the_false_alarm_rate_of_many_small_calibrations_is_the_level_and_no_more():
    rng = np.random.default_rng(1)
    # 39 records: 5 % is exactly the two strangest of 40.
    alarms = sum(
        int(Calibration.of(rng.normal(size=39)).p_values(rng.normal(size=1))[0] <= 0.05) for _ in range(8000)
    )
    assert stats.binomtest(alarms, 8000, 0.05).pvalue > 1e-3


def test_the_count_without_the_new_input_is_no_valid_p_value():
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(8000):
        known, new = rng.normal(size=30), rng.normal()
        alarms += int((known >= new).mean() <= 0.05)
    assert stats.binomtest(alarms, 8000, 0.05).pvalue < 1e-3


def test_a_level_that_the_calibration_cannot_reach_is_refused():
    few = Calibration.of(np.arange(10))
    with pytest.raises(CalibrationError, match="19 or more"):
        few.check_level(0.05)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        few.check_level(1.5)
    with pytest.raises(CalibrationError, match="finite"):
        Calibration.of([1.0, np.nan])


def test_surprise_keeps_the_order_of_scores_also_beyond_all_known_ones():
    rng = np.random.default_rng(3)
    known = rng.exponential(size=2000)
    scale = Surprise.of(known)
    grid = np.linspace(np.median(known), 100.0, 500)
    assert (np.diff(scale(grid)) > 0).all()
    # Within the known scores it is minus the log of the tail.
    assert scale(np.array([2.0]))[0] == pytest.approx(2.0, abs=0.25)
    assert Calibration.of(scale(known)).p_values(scale(np.array([np.nan])))[0] == 1 / 2001


def test_surprise_of_scores_that_are_all_alike_still_ranks_what_is_beyond():
    scale = Surprise.of(np.ones(50))
    low, same, high = scale(np.array([0.0, 1.0, 2.0]))
    assert low <= same < high < np.inf


def test_the_batch_rule_is_benjamini_and_hochbergs():
    rng = np.random.default_rng(4)
    for _ in range(50):
        p = rng.random(30) ** 2
        raised = benjamini_hochberg(p, 0.1)
        assert np.array_equal(raised, stats.false_discovery_control(p) <= 0.1)
    assert not benjamini_hochberg([], 0.1).any()
    with pytest.raises(ConfigError):
        benjamini_hochberg([0.1], 0.0)
