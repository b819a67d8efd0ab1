"""Robust rules equal their published definitions, written here once more with loops; no adversary moves one too far.

Numbers of rows are even and odd, and f from none to as many as a rule withstands.
"""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize
from test_contract import noise

from fedsafe.aggregation import (
    CentredClipping,
    GeometricMedian,
    Krum,
    Mean,
    Median,
    MultiKrum,
    NormBound,
    TrimmedMean,
    Updates,
)
from fedsafe.aggregation.distances import squared_distances
from fedsafe.aggregation.geometric_median import geometric_median
from fedsafe.aggregation.mixing import Bucketing, NearestNeighbourMixing
from fedsafe.errors import EngineError

SIZES = [(n, f) for n in (7, 8, 15, 20) for f in range((n - 3) // 2 + 1)]
CLOSE = {"rtol": 0, "atol": 1e-9}


def rows_of(n, parameters=5, seed=0):
    """With a large common part, as updates have it, so that distances must not cancel."""
    rng = np.random.default_rng([n, parameters, seed])
    return 100.0 * rng.normal(size=parameters) + rng.normal(size=(n, parameters))


def combined(rule, rows, stream=None):
    updates = Updates(clients=np.arange(len(rows)), rows=rows, examples=1.0 + np.arange(len(rows)))
    return rule.finish(rule.add(rule.zero(rows.shape[1]), updates), noise() if stream is None else stream)


def scores_by_hand(rows, f):
    scores = []
    for i, row in enumerate(rows):
        others = sorted(math.dist(row, other) ** 2 for j, other in enumerate(rows) if j != i)
        scores.append(sum(others[: len(rows) - f - 2]))
    return scores


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_krum_is_the_row_nearest_to_its_neighbours(n, f):
    rows = rows_of(n)
    scores = scores_by_hand(rows, f)
    np.testing.assert_array_equal(combined(Krum(adversaries=f), rows), rows[scores.index(min(scores))])


@pytest.mark.parametrize(("n", "f"), SIZES)
@pytest.mark.parametrize("selected", [None, 1, 3])
def test_multi_krum_is_the_mean_of_the_best(n, f, selected):
    rows = rows_of(n)
    scores = scores_by_hand(rows, f)
    best = sorted(range(n), key=scores.__getitem__)[: n - f if selected is None else selected]
    rule = MultiKrum(adversaries=f, selected=selected)
    np.testing.assert_allclose(combined(rule, rows), sum(rows[i] for i in best) / len(best), **CLOSE)


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_the_trimmed_mean_leaves_out_f_at_each_end(n, f):
    rows = rows_of(n)
    expected = [np.mean(sorted(column)[f : n - f]) for column in rows.T]
    np.testing.assert_allclose(combined(TrimmedMean(adversaries=f), rows), expected, **CLOSE)
    np.testing.assert_array_equal(
        combined(TrimmedMean(adversaries=f), rows), combined(TrimmedMean(share=f / n), rows)
    )


def test_the_median_of_an_even_number_is_the_middle_of_two():
    np.testing.assert_array_equal(combined(Median(), np.array([[1.0], [2.0], [10.0], [50.0]])), [6.0])


def test_the_mean_of_rows_counts_every_client_alike():
    np.testing.assert_allclose(combined(Mean(), rows_of(8)), rows_of(8).mean(axis=0), **CLOSE)


class TestGeometricMedian:
    @pytest.mark.parametrize("n", [3, 4, 7, 8, 20])
    @pytest.mark.parametrize("parameters", [2, 5, 40])
    def test_it_is_where_the_sum_of_distances_is_smallest(self, n, parameters):
        rows = rows_of(n, parameters)

        def total(point):
            apart = point - rows
            lengths = np.linalg.norm(apart, axis=1)
            return lengths.sum(), (apart / np.maximum(lengths, 1e-15)[:, None]).sum(axis=0)

        start = rows.mean(axis=0)
        expected = minimize(total, start, jac=True, method="BFGS", options={"gtol": 1e-10}).x
        found = geometric_median(rows)
        assert np.linalg.norm(found - expected) < 1e-6
        assert total(found)[0] <= total(expected)[0] + 1e-12 * n

    def test_the_fermat_point_of_a_triangle(self):
        """Torricelli: with sides seen at 120 degrees; here of an isosceles triangle, at a height of 1 / sqrt(3)."""
        np.testing.assert_allclose(
            geometric_median(np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])), [0.0, 3**-0.5], atol=1e-9
        )

    def test_of_a_convex_quadrilateral_it_is_where_the_diagonals_cross(self):
        corners = np.array([[0.0, 0.0], [4.0, 0.0], [6.0, 6.0], [0.0, 4.0]])
        np.testing.assert_allclose(geometric_median(corners), [2.0, 2.0], atol=1e-9)

    def test_a_corner_of_120_degrees_or_more_is_it_itself(self):
        rows = np.array([[-10.0, 1.0], [0.0, 0.0], [10.0, 1.0]])
        np.testing.assert_allclose(geometric_median(rows), [0.0, 0.0], atol=1e-6)

    def test_of_numbers_it_is_the_median(self):
        values = np.array([[3.0], [-1.0], [8.0], [100.0], [4.0]])
        np.testing.assert_allclose(geometric_median(values), [4.0], atol=1e-6)

    @pytest.mark.parametrize("copies", [4, 5])
    def test_of_identical_rows_in_the_majority_it_is_that_row(self, copies):
        rows = np.concatenate([np.full((copies, 3), 0.25), rows_of(3, 3)])
        np.testing.assert_allclose(geometric_median(rows), np.full(3, 0.25), atol=1e-6)

    @pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e9])
    def test_it_scales_with_the_rows(self, scale):
        rows = rows_of(9)
        np.testing.assert_allclose(geometric_median(scale * rows) / scale, geometric_median(rows), rtol=1e-9)

    def test_a_huge_row_costs_the_others_no_digits(self):
        """Of more parameters than rows, so that the rows are reduced first."""
        rows = rows_of(9, 30)
        far = 1e30 * np.eye(30)[:1]
        farther = 1e60 * np.eye(30)[:1]
        first, second = (geometric_median(np.concatenate([rows, row])) for row in (far, farther))
        np.testing.assert_allclose(first, second, rtol=1e-9)
        assert np.linalg.norm(first - geometric_median(rows)) < 3.0


def clipped(vector, clip):
    return vector * min(1.0, clip / max(np.linalg.norm(vector), 1e-300))


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("n", [7, 8])
def test_centred_clipping_clips_around_what_it_gave_last(n, iterations):
    rule, centre = CentredClipping(clip=1.5, iterations=iterations), np.zeros(5)
    for number in range(3):
        rows = rows_of(n, seed=number) / 50
        for _ in range(iterations):
            centre = centre + sum(clipped(row - centre, 1.5) for row in rows) / n
        np.testing.assert_allclose(combined(rule, rows), centre, **CLOSE)
        rule.advance(fold_of(rule, rows), noise())
        np.testing.assert_allclose(rule.state()["centre"], centre, **CLOSE)


def fold_of(rule, rows):
    updates = Updates(clients=np.arange(len(rows)), rows=rows, examples=np.ones(len(rows)))
    return rule.add(rule.zero(rows.shape[1]), updates)


def test_without_a_clip_it_is_the_median_distance():
    rows = rows_of(8)
    clip = float(np.median([np.linalg.norm(row) for row in rows]))
    np.testing.assert_allclose(
        combined(CentredClipping(), rows), combined(CentredClipping(clip=clip), rows), **CLOSE
    )


@pytest.mark.parametrize("bound", [None, 0.5, 1e6])
def test_the_norm_bound_clips_each_row(bound):
    rows = rows_of(8) / 50
    limit = np.median([np.linalg.norm(row) for row in rows]) if bound is None else bound
    expected = sum(clipped(row, limit) for row in rows) / 8
    np.testing.assert_allclose(combined(NormBound(bound=bound), rows), expected, **CLOSE)


class TestMixing:
    @pytest.mark.parametrize(("n", "f"), SIZES)
    def test_each_row_becomes_the_mean_of_its_nearest(self, n, f):
        rows = rows_of(n)
        expected = []
        for row in rows:
            nearest = sorted(range(n), key=lambda j, row=row: math.dist(row, rows[j]))[: n - f]
            expected.append(rows[nearest].mean(axis=0))
        np.testing.assert_allclose(NearestNeighbourMixing()(rows, f, None), expected, **CLOSE)

    def test_the_rule_sees_the_mixed_rows_and_the_same_number_of_adversaries(self):
        rows = rows_of(11)
        mixed = NearestNeighbourMixing()(rows, 3, None)
        rule = Krum(adversaries=3, before="nearest_neighbour_mixing")
        np.testing.assert_array_equal(combined(rule, rows), combined(Krum(adversaries=3), mixed))
        asked = Median(share=0.3, before="nearest_neighbour_mixing")
        np.testing.assert_array_equal(combined(asked, rows), combined(Median(), mixed))

    @pytest.mark.parametrize(("n", "size"), [(8, 2), (9, 2), (10, 3), (3, 5), (4, 1)])
    def test_buckets_are_means_of_every_row_once(self, n, size):
        rows = rows_of(n)
        means = Bucketing(size=size)(rows, 0, noise())
        sizes = [size] * (n // size) + ([n % size] if n % size else [])
        assert len(means) == len(sizes)
        np.testing.assert_allclose(np.average(means, axis=0, weights=sizes), rows.mean(axis=0), **CLOSE)
        possible = [np.mean(part, axis=0) for part in itertools.combinations(rows, sizes[0])]
        for mean, count in zip(means, sizes, strict=True):
            if count == sizes[0]:
                assert min(np.abs(mean - other).max() for other in possible) < 1e-9

    def test_nobody_can_foresee_the_buckets(self):
        """They come from the server's stream of the round: another round, other buckets; the same again on asking."""
        rows, rule = rows_of(20), Median(before={"name": "bucketing", "size": 3})
        first, again, other = (combined(rule, rows, noise(number)) for number in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 1e-3
        with pytest.raises(EngineError, match="was given no stream"):
            rule.combine(Updates(clients=np.arange(20), rows=rows, examples=np.ones(20)))

    def test_a_remembering_rule_remembers_the_mixed_result(self):
        rule, rows = CentredClipping(before="bucketing"), rows_of(9)
        given = combined(rule, rows)
        rule.advance(fold_of(rule, rows), noise())
        np.testing.assert_array_equal(rule.state()["centre"], given)


class TestHowMany:
    def test_a_share_is_of_the_replies(self):
        rule = Krum(share=0.3)
        assert [rule.tolerated(n) for n in (1, 2, 3, 9, 10, 100)] == [0, 0, 0, 2, 3, 30]

    def test_a_round_with_few_replies_allows_for_as_many_as_any_rule_can(self):
        rule = TrimmedMean(adversaries=30)
        assert [rule.tolerated(n) for n in (1, 2, 40, 61, 100)] == [0, 0, 19, 30, 30]

    @pytest.mark.parametrize("rule", [Krum(), MultiKrum(), TrimmedMean()])
    def test_by_default_it_is_a_tenth(self, rule):
        assert rule.tolerated(20) == 2

    @pytest.mark.parametrize("n", [1, 2, 3, 4])
    @pytest.mark.parametrize("rule", [Krum(share=0.4), MultiKrum(share=0.4, selected=9), GeometricMedian()])
    def test_the_smallest_rounds_have_a_result_between_their_rows(self, rule, n):
        rows = rows_of(n)
        result = combined(rule, rows)
        assert (rows.min(axis=0) - 1e-9 <= result).all()
        assert (result <= rows.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize("n", [5, 6, 30])
def test_distances_are_those_of_the_rows(n):
    rows = 1e6 + rows_of(n, 7)
    expected = [[math.dist(a, b) ** 2 for b in rows] for a in rows]
    np.testing.assert_allclose(squared_distances(rows), expected, rtol=1e-8, atol=1e-12)
    assert (squared_distances(np.tile(rows[:1], (3, 1))) == 0.0).all()


OUTLIERS = [0.0, 0.5, 2.0, 5.0, 1e3, 1e12]


@pytest.mark.parametrize("distance", OUTLIERS)
@pytest.mark.parametrize(("n", "f"), [(10, 1), (11, 4), (20, 6), (100, 30)])
class TestBounds:
    """f identical outliers, at any distance, move a rule by no more than its docstring says."""

    def attacked(self, n, f, distance):
        honest = np.random.default_rng([n, f]).normal(size=(n - f, 4))
        towards = np.array([1.0, -1.0, 1.0, 0.5])
        return honest, np.concatenate([honest, np.tile(honest.mean(axis=0) + distance * towards, (f, 1))])

    @pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
    def test_within_the_honest_values(self, n, f, distance, rule):
        honest, rows = self.attacked(n, f, distance)
        result = combined(Median() if rule == "median" else TrimmedMean(adversaries=f), rows)
        assert (honest.min(axis=0) <= result).all()
        assert (result <= honest.max(axis=0)).all()

    def test_the_geometric_median(self, n, f, distance):
        honest, rows = self.attacked(n, f, distance)
        centre, share = honest.mean(axis=0), f / n
        radius = np.linalg.norm(honest - centre, axis=1).max()
        moved = np.linalg.norm(combined(GeometricMedian(), rows) - centre)
        assert moved <= radius * (1 - share) / math.sqrt(1 - 2 * share)

    def test_krum(self, n, f, distance):
        honest, rows = self.attacked(n, f, distance)
        result = combined(Krum(adversaries=f), rows)
        assert np.linalg.norm(honest - result, axis=1).min() <= self.krum_bound(honest, n, f)

    def test_multi_krum(self, n, f, distance):
        """A mean is no farther from the honest rows' mean than the farthest of what it is the mean of."""
        honest, rows = self.attacked(n, f, distance)
        result = combined(MultiKrum(adversaries=f), rows)
        radius = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
        reach = radius + self.krum_bound(honest, n, f)
        assert np.linalg.norm(result - honest.mean(axis=0)) <= reach

    def krum_bound(self, honest, n, f):
        widest = max(math.dist(a, b) for a in honest for b in honest)
        return widest * math.sqrt((n - f - 2) / (n - 2 * f - 1))

    @pytest.mark.parametrize("iterations", [1, 4])
    def test_centred_clipping(self, n, f, distance, iterations):
        honest, rows = self.attacked(n, f, distance)
        rule, calm = CentredClipping(clip=0.7, iterations=iterations), rows.copy()
        calm[len(honest) :] = 0.0
        moved = np.linalg.norm(combined(rule, rows) - combined(rule, calm))
        assert moved <= 2 * f * 0.7 * iterations / n + 1e-12

    def test_the_norm_bound(self, n, f, distance):
        honest, rows = self.attacked(n, f, distance)
        without = np.concatenate([honest, np.zeros((f, 4))])
        moved = np.linalg.norm(combined(NormBound(bound=0.7), rows) - combined(NormBound(bound=0.7), without))
        assert moved <= f * 0.7 / n + 1e-12
        largest = np.linalg.norm(honest, axis=1).max()
        assert np.linalg.norm(combined(NormBound(), rows)) <= largest

    def test_the_mean_has_no_bound(self, n, f, distance):
        """The check of the median fails it, so that the check can fail."""
        honest, rows = self.attacked(n, f, distance)
        result = combined(Mean(), rows)
        inside = (honest.min(axis=0) <= result).all() and (result <= honest.max(axis=0)).all()
        assert distance < 1e3 or not inside
