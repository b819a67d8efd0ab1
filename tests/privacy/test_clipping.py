"""Clipping is what sensitivity rests on: no row leaves longer than the clip, whatever went in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedsafe.privacy.clipping import MARGIN, clip_rows, finite_rows

anything = st.floats(width=64)
matrices = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=anything)
clips = st.floats(1e-6, 1e6)

CASES = {
    "nan": (np.nan, 0.0),
    "inf": (np.inf, 0.0),
    "-inf": (-np.inf, 0.0),
    "1e30": (1e30, 1.0),
    "1e300": (1e300, 1.0),
    "denormal": (5e-324, 0.0),
    "tiny": (1e-200, 0.0),
    "zero": (0.0, 0.0),
    "-zero": (-0.0, 0.0),
    "ordinary": (3.0, 1.0),
}


def norm(row: np.ndarray) -> float:
    """Scaled, so that the oracle itself cannot overflow; long double where the platform has it."""
    wide = row.astype(np.longdouble)
    peak = np.abs(wide).max(initial=0)
    return float(peak * np.sqrt(((wide / peak) ** 2).sum())) if peak > 0 else 0.0


@given(matrices, clips)
def test_no_row_is_ever_longer_than_the_clip(rows, clip):
    clipped = clip_rows(rows, clip)
    assert clipped.shape == rows.shape
    assert np.isfinite(clipped).all()
    assert all(norm(row) <= clip for row in clipped)


@given(matrices, clips)
def test_a_row_below_the_clip_keeps_its_bits(rows, clip):
    clipped = clip_rows(rows, clip)
    for row, result in zip(rows, clipped, strict=True):
        if np.isfinite(row).all() and norm(row) <= clip * MARGIN * (1 - 1e-9):
            assert result.tobytes() == row.tobytes()


@given(matrices, clips, st.data())
def test_a_row_does_not_depend_on_the_others(rows, clip, data):
    position = data.draw(st.integers(0, len(rows) - 1))
    alone = clip_rows(rows[position : position + 1], clip)
    assert alone.tobytes() == clip_rows(rows, clip)[position].tobytes()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_bad_row_is_bounded_and_leaves_the_others_bit_identical(name, everywhere):
    value, length = CASES[name]
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 40))
    clean = clip_rows(rows, 1.0)
    if everywhere:
        rows[2] = value
    else:
        rows[2] = 0.0
        rows[2, 17] = value
    clipped = clip_rows(rows, 1.0)
    assert np.delete(clipped, 2, 0).tobytes() == np.delete(clean, 2, 0).tobytes()
    assert norm(clipped[2]) == pytest.approx(length * MARGIN, rel=1e-9, abs=1e-190)


def test_a_norm_that_overflows_double_precision_gives_a_zero_row_without_a_warning():
    clipped = clip_rows(np.full((1, 100), 1.7e308), 1.0)
    assert norm(clipped[0]) == 0.0


def test_one_bad_value_drops_the_whole_row_not_the_value():
    """0 x NaN is NaN, and a half-dropped row would have another direction."""
    rows = np.ones((1, 8))
    rows[0, 3] = np.nan
    np.testing.assert_array_equal(clip_rows(rows, 10.0), np.zeros((1, 8)))


def test_the_clip_is_joint_over_all_tensors():
    """Elsewhere each tensor is clipped by itself: four tensors would leave twice the norm."""
    tensors = [
        np.full(25, 0.2),
        np.full(25, 0.2),
        np.full(25, 0.2),
        np.full(25, 0.2),
    ]  # norm 1 each, 2 jointly
    clipped = clip_rows(np.concatenate(tensors)[None], 1.0)
    assert norm(clipped[0]) == pytest.approx(MARGIN)


def test_direction_is_kept():
    row = np.array([[3.0, -4.0, 0.0]])
    np.testing.assert_allclose(clip_rows(row, 1.0), row / 5.0 * MARGIN, rtol=1e-12)


def test_an_update_of_zeros_stays_zero():
    """Elsewhere an all-zero update raised ZeroDivisionError."""
    np.testing.assert_array_equal(clip_rows(np.zeros((2, 3)), 1.0), np.zeros((2, 3)))


def test_no_rows_and_no_parameters_are_fine():
    assert clip_rows(np.zeros((0, 4)), 1.0).shape == (0, 4)
    assert clip_rows(np.zeros((3, 0)), 1.0).shape == (3, 0)


def test_the_input_is_left_alone():
    rows = np.array([[np.nan, 1.0], [30.0, 40.0]])
    before = rows.copy()
    clip_rows(rows, 1.0)
    finite_rows(rows)
    np.testing.assert_array_equal(rows, before)


@given(matrices)
def test_finite_rows_select_and_do_not_multiply(rows):
    for row, result in zip(rows, finite_rows(rows), strict=True):
        expected = row if np.isfinite(row).all() else np.zeros_like(row)
        assert result.tobytes() == expected.tobytes()
