"""Calibration by group: what is planted is found, and calibrated groups show no gap."""

import numpy as np
import pytest

from fedsafe.assess.fairness.calibration import bin_predictions, calibration_by_group, calibration_gap
from fedsafe.assess.fairness.mean_gaps import largest_difference, normal_noise


def draw(rng, sizes, shift=0.0):
    """Predictions, and outcomes that come true as often as predicted; in the last group by `shift` more often."""
    confidence = [rng.uniform(0.1, 0.8, n) for n in sizes]
    moved = [0.0] * (len(sizes) - 1) + [shift]
    outcome = [
        (rng.random(len(p)) < p + more).astype(float) for p, more in zip(confidence, moved, strict=True)
    ]
    return confidence, outcome


def by_group(confidence, outcome, rng, **options):
    groups = np.repeat([f"g{i}" for i in range(len(outcome))], list(map(len, outcome)))
    found = calibration_by_group(
        np.concatenate(confidence),
        np.concatenate(outcome),
        groups,
        dict.fromkeys(np.unique(groups), "") | options.pop("unfit", {}),
        "site",
        event="yes",
        shows_bins=True,
        resamples=500,
        rng=rng,
        context={"data": "made"},
    )
    return {(f.metric.removeprefix("fairness.calibration_"), f.where.get("group")): f for f in found}


def test_a_planted_miscalibration_of_one_group_is_found():
    rng = np.random.default_rng(0)
    confidence, outcome = draw(rng, [2000, 3000, 1500], 0.15)
    found = by_group(confidence, outcome, rng)
    for i, (p, y) in enumerate(zip(confidence, outcome, strict=True)):
        large = found["in_the_large", f"g{i}"]
        assert large.value == pytest.approx(y.mean() - p.mean())
        assert (large.interval[0] > 0.1) == (i == 2)
        error = found["error", f"g{i}"]
        assert error.detail["plug_in"] == pytest.approx(binned_error(p, y), abs=2e-3)
        assert sum(row["n"] for row in error.detail["table"]) == len(y)
    for name in ("error_difference", "in_the_large_difference"):
        gap = found[name, None]
        assert gap.interval[0] <= 0.15 <= gap.interval[1]
        assert gap.interval[0] > (0.0 if name == "error_difference" else 0.05)
        assert gap.detail["extremes"]["high"] == "g2"
    assert found["in_the_large_difference", None].detail["p_value"] < 0.01


def binned_error(confidence, outcome):
    """Slow: the expected calibration error over 15 bins of equal mass, record by record."""
    order = np.argsort(confidence)
    return sum(
        len(rows) / len(order) * abs(outcome[rows].mean() - confidence[rows].mean())
        for rows in np.array_split(order, 15)
    )


def test_a_group_that_is_too_small_is_listed_and_not_compared():
    rng = np.random.default_rng(1)
    found = by_group(*draw(rng, [500, 500, 20]), rng, unfit={"g2": "too few"})
    assert found["error", "g2"].status == found["in_the_large", "g2"].status == "insufficient"
    assert found["error_difference", None].detail["left_out"] == ["g2"]
    alone = by_group(*draw(rng, [500, 20]), rng, unfit={"g1": "too few"})
    assert {alone[name, None].status for name in ("error_difference", "in_the_large_difference")} == {
        "insufficient"
    }
    assert alone["error_difference", None].reason == "1 of 2 groups are large enough, a gap needs 2"


def test_calibrated_groups_show_no_gap_in_their_intervals_and_none_on_average():
    rng, runs, sizes = np.random.default_rng(2), 150, [150, 400, 1000, 200]
    errors, means = [], []
    for _ in range(runs):
        confidence, outcome = draw(rng, sizes)
        groups = [bin_predictions(p, y) for p, y in zip(confidence, outcome, strict=True)]
        errors.append(calibration_gap(groups, rng, 200))
        residuals = [y - p for p, y in zip(confidence, outcome, strict=True)]
        spread = np.array([r.std(ddof=1) / np.sqrt(len(r)) for r in residuals])
        means.append(
            largest_difference(np.array([r.mean() for r in residuals]), normal_noise(spread, rng, 500))
        )
    for gaps in (errors, means):
        assert np.mean([gap.interval[0] == 0 for gap in gaps]) >= 0.91
        debiased, plain = (np.array([getattr(gap, name) for gap in gaps]) for name in ("debiased", "value"))
        error = debiased.std() / np.sqrt(runs)
        assert abs(debiased.mean()) < 4 * error
        assert plain.mean() > 8 * error
        assert plain.mean() == pytest.approx(np.mean([gap.null_mean for gap in gaps]), rel=0.12)
    assert np.mean([gap.p_value < 0.05 for gap in means]) <= 0.11


def test_a_difference_of_means_is_covered_and_debiased():
    rng, truth = np.random.default_rng(3), np.array([0.0, 0.1, 0.5])
    spread = np.array([0.1, 0.05, 0.08])
    gaps = [largest_difference(rng.normal(truth, spread), normal_noise(spread, rng, 400)) for _ in range(400)]
    assert np.mean([low <= 0.5 <= high for low, high in (gap.interval for gap in gaps)]) >= 0.93
    # Never above the truth on average: now and then it compares the wrong pair.
    assert 0.44 < np.mean([gap.debiased for gap in gaps]) < 0.51
