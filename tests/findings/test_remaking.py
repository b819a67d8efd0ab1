"""An interval at another confidence is what it would have been, or says how it was widened."""

import numpy as np
import pytest
from scipy import stats

from fedsafe.findings import (
    Pairs,
    difference,
    estimate,
    newcombe,
    not_measured,
    paired_difference,
    paired_newcombe,
    proportion,
    remake,
    t_interval,
    wilson,
)

SHARE, CHANGE, GAP = "performance.accuracy", "comparison.accuracy_change", "fairness.accuracy_difference"


def test_shares_differences_and_means_are_made_anew_exactly():
    pairs = Pairs(both=70, first=9, second=4, neither=17)
    values = np.random.default_rng(0).normal(5.0, 1.0, 30)
    mean = estimate(
        "comparison.loss_change",
        float(values.mean()),
        interval=t_interval(values),
        method="t",
        n=30,
        unit="examples",
    )
    for finding, expected in (
        (proportion(SHARE, 70, 100), wilson(70, 100, 0.99)),
        (difference(GAP, 70, 100, 50, 90), newcombe(70, 100, 50, 90, 0.99)),
        (paired_difference(CHANGE, pairs), paired_newcombe(pairs, 0.99)),
        (mean, t_interval(values, 0.99)),
    ):
        remade = remake(finding, 0.99)
        assert remade.interval == pytest.approx(expected, abs=1e-12)
        assert "made anew at 0.99" in remade.note


def test_a_mean_cut_at_the_edge_of_its_range_is_stretched_from_its_whole_side():
    nll = estimate("performance.nll", 0.1, interval=(0.0, 0.3), method="t", n=20, unit="examples")
    low, high = remake(nll, 0.99).interval
    assert low == 0.0
    assert high == pytest.approx(0.1 + 0.2 * stats.t.ppf(0.995, 19) / stats.t.ppf(0.975, 19))


def test_a_bootstrap_interval_is_widened_and_says_so_and_never_narrowed():
    made = estimate(GAP, 0.1, interval=(0.02, 0.2), method="simultaneous by bootstrap", n=99, unit="examples")
    remade = remake(made, 0.99)
    ratio = stats.norm.ppf(0.995) / stats.norm.ppf(0.975)
    assert remade.interval == pytest.approx((max(0.0, 0.1 - 0.08 * ratio), 0.1 + 0.1 * ratio))
    assert "widened from 0.95 to 0.99 as a normal one" in remade.note
    assert remake(made, 0.9) is None
    assert remake(made, 0.95).interval == made.interval


def test_a_widened_interval_stays_in_the_range_of_its_metric():
    made = estimate(GAP, 0.9, interval=(0.5, 0.99), method="bootstrap", n=99, unit="examples")
    assert remake(made, 0.9999).interval[1] <= 1.0


def test_what_has_no_interval_or_one_of_unknown_make_is_left_alone():
    made = estimate(GAP, 0.1, interval=(0.0, 0.2), method="my own", n=99, unit="examples")
    for finding in (made, estimate(GAP, 0.1), not_measured(GAP, "lost")):
        assert remake(finding, 0.99) is None
