"""Pairs: the published intervals, the exact test, and coverage at the stated confidence."""

import numpy as np
import pytest
from scipy import stats

from fedsafe.errors import ConfigError
from fedsafe.findings import Pairs, mcnemar, newcombe, paired_difference, paired_newcombe

METRIC = "comparison.accuracy_change"


def test_the_interval_equals_the_worked_example_of_newcombe_1998_for_pairs():
    found = paired_newcombe(Pairs(both=36, first=12, second=2, neither=0))
    assert found == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_no_difference_and_no_example_that_differs():
    pairs = Pairs(both=80, first=0, second=0, neither=20)
    low, high = paired_newcombe(pairs)
    assert low == pytest.approx(-high)
    assert (pairs.difference, mcnemar(pairs)) == (0.0, 1.0)
    # The same counts taken for independent would say far less.
    assert high < newcombe(80, 100, 80, 100)[1] / 2


@pytest.mark.parametrize(("first", "second"), [(12, 2), (2, 12), (5, 5), (0, 9), (30, 11)])
def test_the_exact_test_is_the_binomial_test_of_those_that_differ(first, second):
    pairs = Pairs(both=50, first=first, second=second, neither=7)
    expected = stats.binomtest(first, first + second).pvalue
    assert mcnemar(pairs) == pytest.approx(expected, abs=1e-12)


def test_flags_are_counted_example_by_example():
    first = np.array([True, True, True, False, False])
    second = np.array([True, False, False, True, False])
    assert Pairs.of(first, second) == Pairs(both=1, first=2, second=1, neither=1)


@pytest.mark.parametrize("cells", [(0.85, 0.06, 0.03, 0.06), (0.45, 0.1, 0.2, 0.25), (0.9, 0.01, 0.01, 0.08)])
def test_intervals_cover_the_true_difference(cells):
    rng = np.random.default_rng(1)
    truth, runs = cells[1] - cells[2], 3000
    covered = 0
    for counts in rng.multinomial(200, cells, size=runs):
        both, first, second, neither = (int(count) for count in counts)
        low, high = paired_newcombe(Pairs(both=both, first=first, second=second, neither=neither))
        covered += low <= truth <= high
    assert 0.94 <= covered / runs <= 0.999


def test_a_finding_keeps_its_counts_and_its_p_value():
    finding = paired_difference(METRIC, Pairs(both=36, first=12, second=2, neither=0))
    assert (finding.value, finding.n) == (0.2, 50)
    assert finding.detail["counts"] == [36, 12, 2, 0]
    assert finding.detail["mcnemar_p_value"] == pytest.approx(0.01294, abs=1e-5)
    nothing = paired_difference(METRIC, Pairs(both=0, first=0, second=0, neither=0))
    assert nothing.status == "insufficient"


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ConfigError, match="from 0"):
        Pairs(both=1, first=-1, second=0, neither=0)
    with pytest.raises(ConfigError, match="at least 1 pair"):
        paired_newcombe(Pairs(both=0, first=0, second=0, neither=0))
