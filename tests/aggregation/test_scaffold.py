"""SCAFFOLD: control variates by hand, and the drift that they remove."""

import numpy as np
import pytest

from fedsafe.aggregation import Fold, RowRule, Scaffold, TrimmedMean, Updates
from fedsafe.rng import Stream, StreamId, key_from_seed

UNUSED = Stream(key_from_seed(0), StreamId(purpose="client noise", client=-1, round=1, digest=b""))
STEPS, LR, CLIENTS, PARAMETERS = 10, 0.1, 6, 3

RNG = np.random.default_rng(3)
# Client k's objective is sum_j a_kj (w_j - b_kj)^2 / 2: curvature and minimum differ from client to client.
CURVATURE = RNG.uniform(0.2, 5.0, (CLIENTS, PARAMETERS))
MINIMUM = RNG.normal(size=(CLIENTS, PARAMETERS))
OPTIMUM = (CURVATURE * MINIMUM).mean(axis=0) / CURVATURE.mean(axis=0)


def scaffold() -> Scaffold:
    return Scaffold(clients=CLIENTS, steps=STEPS, learning_rate=LR)


def fold_of(rule: RowRule, clients: list[int], rows: np.ndarray) -> Fold:
    updates = Updates(clients=np.array(clients), rows=rows, examples=np.ones(len(clients)))
    return rule.add(rule.zero(rows.shape[1]), updates)


def local_update(client: int, broadcast: np.ndarray, correction: np.ndarray | None) -> np.ndarray:
    """``w -= lr (g + correction)``, STEPS times."""
    w = broadcast.copy()
    for _ in range(STEPS):
        gradient = CURVATURE[client] * (w - MINIMUM[client])
        w -= LR * (gradient if correction is None else gradient + correction)
    return w - broadcast


def trained(rule: RowRule, rounds: int, take_part: float = 1.0) -> np.ndarray:
    rng, w = np.random.default_rng(5), np.zeros(PARAMETERS)
    for _ in range(rounds):
        cohort = np.flatnonzero(rng.random(CLIENTS) < take_part).tolist()
        rows = [local_update(client, w, rule.correction(client, PARAMETERS)) for client in cohort]
        fold = fold_of(rule, cohort, np.array(rows).reshape(len(cohort), PARAMETERS))
        w = w + rule.finish(fold, UNUSED)
        rule.advance(fold)
    return w


def test_the_first_round_by_hand():
    """Option II: c_i = -d_i / (K lr), K lr = 1; c is the mean over all six clients, not over the two heard."""
    rule = scaffold()
    np.testing.assert_array_equal(rule.correction(4, 2), [0.0, 0.0])
    rule.advance(fold_of(rule, [1, 4], np.array([[1.0, 2.0], [-3.0, 6.0]])))
    np.testing.assert_allclose(rule.state()["mean"], [2 / 6, -8 / 6])
    np.testing.assert_allclose(rule.correction(1, 2), [2 / 6 + 1.0, -8 / 6 + 2.0], rtol=1e-6)
    np.testing.assert_allclose(rule.correction(4, 2), [2 / 6 - 3.0, -8 / 6 + 6.0], rtol=1e-6)
    np.testing.assert_allclose(rule.correction(0, 2), [2 / 6, -8 / 6], rtol=1e-6)


def test_the_second_round_by_hand():
    """``c_i+ = c_i - c - d_i / (K lr)`` from the variates of the round before."""
    rule = scaffold()
    rule.advance(fold_of(rule, [1, 4], np.array([[1.0], [-3.0]])))
    rule.advance(fold_of(rule, [0, 4], np.array([[0.5], [2.0]])))
    mean = 2 / 6
    expected = {0: 0 - mean - 0.5, 1: -1.0, 4: 3.0 - mean - 2.0}
    after = sum(expected.values()) / 6
    np.testing.assert_allclose(rule.state()["mean"], [after], rtol=1e-6)
    for client in range(CLIENTS):
        np.testing.assert_allclose(rule.correction(client, 1), [after - expected.get(client, 0.0)], rtol=1e-6)


def test_the_variate_of_a_client_without_drift_is_its_mean_gradient():
    """Which is why the correction replaces a client's direction by everybody's."""
    rule, w = scaffold(), np.zeros(PARAMETERS)
    rule.advance(fold_of(rule, [2], local_update(2, w, None)[None]))
    path, gradients = w.copy(), []
    for _ in range(STEPS):
        gradients.append(CURVATURE[2] * (path - MINIMUM[2]))
        path -= LR * gradients[-1]
    np.testing.assert_allclose(rule.state()["variates"][0], np.mean(gradients, axis=0), rtol=1e-5)


def test_the_update_is_the_unweighted_mean():
    rule = scaffold()
    updates = Updates(clients=np.arange(2), rows=np.array([[1.0], [3.0]]), examples=np.array([1.0, 99.0]))
    np.testing.assert_array_equal(rule.finish(rule.add(rule.zero(1), updates), UNUSED), [2.0])


@pytest.mark.parametrize("take_part", [1.0, 0.5])
def test_it_reaches_the_optimum_of_unlike_clients_where_averaging_drifts(take_part):
    """Ten local steps on six unlike parabolas. The unweighted mean is FedAvg for clients of equal size."""
    drifted = trained(TrimmedMean(share=0.0), 400)
    corrected = trained(scaffold(), 400, take_part)
    assert np.abs(drifted - OPTIMUM).max() > 0.05
    np.testing.assert_allclose(corrected, OPTIMUM, atol=1e-4)


def test_a_client_that_is_not_heard_keeps_its_variate_and_the_mean_stays_the_mean():
    rule = scaffold()
    for cohort in ([0, 1, 2], [2, 3], [5], []):
        rule.advance(fold_of(rule, cohort, RNG.normal(size=(len(cohort), PARAMETERS))))
    held = rule.state()
    assert held["clients"].tolist() == [0, 1, 2, 3, 5]
    np.testing.assert_allclose(held["mean"], held["variates"].astype(float).sum(axis=0) / CLIENTS, atol=1e-12)


def test_an_update_beyond_single_precision_leaves_its_variate_alone():
    rule = scaffold()
    rule.advance(fold_of(rule, [0, 1], np.ones((2, PARAMETERS))))
    before = rule.state()
    rule.advance(fold_of(rule, [0], np.full((1, PARAMETERS), 1e300)))
    after = rule.state()
    assert {name: array.tobytes() for name, array in after.items()} == {
        name: array.tobytes() for name, array in before.items()
    }
