"""q-FedAvg and agnostic learning: the textbook formulas, and what they are for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedsafe.aggregation import Agnostic, FedAvg, Fold, QFedAvg, RowRule, Updates
from fedsafe.aggregation.agnostic import project_to_simplex
from fedsafe.rng import Stream, StreamId, key_from_seed

UNUSED = Stream(key_from_seed(0), StreamId(purpose="client noise", client=-1, round=1, digest=b""))
LR = 0.25

rows_of_clients = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(1, 4)), elements=st.floats(-1e3, 1e3)
)
loss = st.floats(1e-6, 1e3)


def fold_of(rule: RowRule, rows: np.ndarray, losses: np.ndarray, clients: np.ndarray | None = None) -> Fold:
    numbers = np.arange(len(rows)) if clients is None else clients
    updates = Updates(clients=numbers, rows=rows, examples=np.ones(len(rows)), losses=losses)
    return rule.add(rule.zero(rows.shape[1]), updates)


def finished(rule: RowRule, rows: np.ndarray, losses: np.ndarray) -> np.ndarray:
    return rule.finish(fold_of(rule, rows, losses), UNUSED)


def as_published(rows: np.ndarray, losses: np.ndarray, q: float) -> np.ndarray:
    """Algorithm 2 of Li et al. (2020), line by line, with w^t = 0."""
    lipschitz = 1.0 / LR
    deltas, curvatures = [], []
    for trained, loss in zip(rows, losses, strict=True):
        gradient = lipschitz * (0.0 - trained)
        deltas.append(loss**q * gradient)
        curvatures.append(q * loss ** (q - 1) * np.sum(gradient**2) + lipschitz * loss**q)
    return -np.sum(deltas, axis=0) / np.sum(curvatures)


class TestQFedAvg:
    @given(rows_of_clients, st.data(), st.sampled_from([0.1, 0.5, 1.0, 2.0, 5.0]))
    def test_it_is_the_published_step(self, rows, data, q):
        losses = data.draw(hnp.arrays(np.float64, len(rows), elements=loss))
        rule = QFedAvg(learning_rate=LR, q=q)
        np.testing.assert_allclose(
            finished(rule, rows, losses), as_published(rows, losses, q), rtol=1e-9, atol=1e-12
        )

    @given(rows_of_clients, st.data())
    def test_without_a_q_it_is_fedavg_with_equal_weights(self, rows, data):
        losses = data.draw(hnp.arrays(np.float64, len(rows), elements=loss))
        uniform = finished(FedAvg(), rows, losses)
        np.testing.assert_allclose(
            finished(QFedAvg(learning_rate=LR, q=0.0), rows, losses), uniform, rtol=1e-12, atol=1e-12
        )

    def test_the_larger_q_the_more_the_worst_client_decides_the_direction(self):
        rows, losses = np.eye(3) * 0.01, np.array([1.0, 1.0, 4.0])
        shares = []
        for q in (0.0, 1.0, 3.0, 10.0):
            step = finished(QFedAvg(learning_rate=LR, q=q), rows, losses)
            shares.append(step[2] / step.sum())
        assert shares == sorted(shares)
        assert shares[0] == pytest.approx(1 / 3)
        assert shares[-1] > 0.999

    def test_clients_without_any_loss_do_not_divide_by_zero(self):
        rows = np.array([[1.0, 0.0], [0.0, 1.0]])
        for losses in (np.zeros(2), np.array([0.0, 1.0])):
            assert np.isfinite(finished(QFedAvg(learning_rate=LR, q=0.5), rows, losses)).all()


class TestSimplex:
    @given(hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-50, 50)))
    def test_the_projection_is_the_nearest_point(self, point):
        """The condition for it: the distance is one shift wherever the result is above zero, and more elsewhere."""
        nearest = project_to_simplex(point)
        assert (nearest >= 0).all()
        assert nearest.sum() == pytest.approx(1.0)
        shift = (point - nearest)[nearest > 0]
        np.testing.assert_allclose(shift, shift[0], atol=1e-9)
        assert (point[nearest == 0] <= shift[0] + 1e-9).all()

    def test_known_points(self):
        np.testing.assert_array_equal(project_to_simplex(np.array([0.25, 0.75])), [0.25, 0.75])
        np.testing.assert_allclose(project_to_simplex(np.array([0.75, 0.75])), [0.5, 0.5])
        np.testing.assert_allclose(project_to_simplex(np.array([3.0, 1.0, -2.0])), [1.0, 0.0, 0.0])
        np.testing.assert_allclose(project_to_simplex(np.array([0.9, 0.5, 0.0])), [0.7, 0.3, 0.0])


class TestAgnostic:
    def test_a_round_by_hand(self):
        """Weights 1/3 each and a gain of 0.2 / 0.5: client 2 climbs by 0.4, client 0 by 0.04."""
        rule = Agnostic(clients=3, rate=0.5, ascent=0.2)
        fold = fold_of(rule, np.array([[3.0], [6.0]]), np.array([0.1, 1.0]), np.array([0, 2]))
        np.testing.assert_allclose(rule.finish(fold, UNUSED), [4.5])
        rule.advance(fold)
        # 1/3 + (0.04, 0, 0.4), less a third of 0.44 each.
        np.testing.assert_allclose(rule.weights, 1 / 3 + np.array([0.04, 0.0, 0.4]) - 0.44 / 3)
        np.testing.assert_allclose(
            rule.finish(fold, UNUSED),
            [(3 * rule.weights[0] + 6 * rule.weights[2]) / rule.weights[[0, 2]].sum()],
        )

    def test_the_weights_move_to_the_worst_client(self):
        rule = Agnostic(clients=4, rate=1.0)
        for _ in range(200):
            rule.advance(fold_of(rule, np.zeros((4, 1)), np.array([0.5, 0.2, 0.9, 0.3])))
        np.testing.assert_array_equal(rule.weights, [0.0, 0.0, 1.0, 0.0])

    def test_equal_losses_move_no_weight(self):
        rule = Agnostic(clients=4, rate=0.5)
        rule.advance(fold_of(rule, np.zeros((4, 1)), np.full(4, 0.7)))
        np.testing.assert_allclose(rule.weights, 0.25)

    def test_a_cohort_without_any_weight_moves_nothing(self):
        rule = Agnostic(clients=2, rate=1.0, ascent=10.0)
        rule.advance(fold_of(rule, np.zeros((2, 1)), np.array([0.0, 1.0])))
        fold = fold_of(rule, np.ones((1, 1)), np.ones(1), np.array([0]))
        np.testing.assert_array_equal(rule.finish(fold, UNUSED), [0.0])

    def test_no_ascent_keeps_the_uniform_mean(self):
        rule = Agnostic(clients=3, rate=1.0, ascent=0.0)
        rule.advance(fold_of(rule, np.ones((3, 1)), np.array([1.0, 2.0, 3.0])))
        np.testing.assert_allclose(rule.weights, 1 / 3)


def trained_on_parabolas(rule: RowRule, rounds: int) -> np.ndarray:
    """The losses at the end: client k's is ``(w - b_k)^2``, and two of three agree on where to go."""
    wanted, w = np.array([0.0, 0.0, 1.0]), 0.0
    for _ in range(rounds):
        losses = (w - wanted) ** 2
        updates = -0.1 * 2.0 * (w - wanted)
        fold = fold_of(rule, updates[:, None], losses)
        w += rule.finish(fold, UNUSED)[0]
        rule.advance(fold)
    return (w - wanted) ** 2


def test_fair_rules_find_the_compromise_that_the_mean_does_not():
    """The mean settles at 1/3, where client 2 has a loss of 4/9; the minimax is 1/2, with 1/4 for everyone."""
    mean = trained_on_parabolas(FedAvg(), 400)
    fair = trained_on_parabolas(QFedAvg(learning_rate=0.1, q=5.0), 400)
    minimax = trained_on_parabolas(Agnostic(clients=3, rate=1.0), 3000)
    assert mean.max() == pytest.approx(4 / 9, rel=1e-3)
    assert 0.25 < fair.max() < 0.35
    assert minimax.max() == pytest.approx(0.25, rel=0.05)
