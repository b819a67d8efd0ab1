"""What every aggregator promises: a monoid, blind to packing, deaf to bad updates. A new one is tested by its name."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsafe.aggregation import RULES, Aggregator, Fold, Updates, build_aggregator
from fedsafe.errors import ConfigError
from fedsafe.privacy.plan import ClientPlan, PrivacyPlan, RecordPlan
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(6)
PARAMETERS = 6
CLIENTS = 9


def plan_of(client_epsilon: float) -> PrivacyPlan:
    return PrivacyPlan(
        clients=CLIENTS,
        rounds=4,
        record=RecordPlan(
            epsilon=math.inf, delta=1e-5, clip=1.0, rate=0.1, steps=1, max_participations=4, noise=0.0
        ),
        client=ClientPlan(
            epsilon=client_epsilon,
            delta=1e-3,
            clip=1.5,
            rate=0.5,
            noise=0.0 if math.isinf(client_epsilon) else 2.0,
            grid_bits=40,
        ),
        program="",
    )


def built(name: str) -> Aggregator:
    """With a client-level target if the rule can carry one: that is the path with clip and noise."""
    try:
        return build_aggregator(name, plan_of(1.0))
    except ConfigError:
        return build_aggregator(name, plan_of(math.inf))


BUILT = {name: built(name) for name in RULES}
UNPROVEN = [name for name, aggregator in BUILT.items() if not aggregator.proven_sensitivity]
CASES = [pytest.param(aggregator, id=name) for name, aggregator in BUILT.items()]
every_aggregator = pytest.mark.parametrize("aggregator", CASES)


def noise(round: int = 1) -> Stream:
    return Stream(KEY, StreamId(purpose="client noise", client=-1, round=round, digest=b"d"))


def updates_of(clients: list[int], rows: NDArray[np.float64]) -> Updates:
    return Updates(
        clients=np.array(clients, np.int64),
        rows=rows,
        examples=np.array([10.0 + 3.0 * client for client in clients]),
    )


ALL = np.random.default_rng(0).normal(size=(CLIENTS, PARAMETERS))


def fold_of(aggregator: Aggregator, clients: list[int], rows: NDArray[np.float64] = ALL) -> Fold:
    return aggregator.add(aggregator.zero(PARAMETERS), updates_of(clients, rows[clients]))


def finished(aggregator: Aggregator, fold: Fold) -> bytes:
    result = aggregator.finish(fold, noise())
    assert result.shape == (PARAMETERS,)
    assert result.dtype == np.float64
    return result.tobytes()


@every_aggregator
def test_zero_is_the_identity(aggregator):
    fold, zero = fold_of(aggregator, [2, 5]), aggregator.zero(PARAMETERS)
    expected = finished(aggregator, fold)
    assert finished(aggregator, aggregator.merge(zero, fold)) == expected
    assert finished(aggregator, aggregator.merge(fold, zero)) == expected
    assert finished(aggregator, aggregator.merge(zero, zero)) == finished(aggregator, zero)


@every_aggregator
def test_merge_is_commutative_and_associative_to_the_bit(aggregator):
    folds = [fold_of(aggregator, clients) for clients in ([0, 7], [3], [1, 2, 8])]
    results = set()
    for a, b, c in permutations(folds):
        results.add(finished(aggregator, aggregator.merge(aggregator.merge(a, b), c)))
        results.add(finished(aggregator, aggregator.merge(a, aggregator.merge(b, c))))
    assert len(results) == 1


@every_aggregator
@given(data=st.data())
def test_packing_cannot_change_a_bit(aggregator, data):
    order = data.draw(st.permutations(range(CLIENTS)))
    cuts = sorted(data.draw(st.sets(st.integers(1, CLIENTS - 1))))
    packs = [list(part) for part in np.split(np.array(order), cuts)]
    # Several calls of add into one fold, several folds merged, in any order.
    merged = aggregator.zero(PARAMETERS)
    for pack in packs:
        if data.draw(st.booleans()):
            merged = aggregator.add(merged, updates_of(pack, ALL[pack]))
        else:
            merged = aggregator.merge(fold_of(aggregator, pack), merged)
    assert finished(aggregator, merged) == finished(aggregator, fold_of(aggregator, list(range(CLIENTS))))


@every_aggregator
def test_adding_and_merging_leave_their_arguments_alone(aggregator):
    first, second = fold_of(aggregator, [0, 1]), fold_of(aggregator, [2])
    rows = ALL.copy()
    before = [{k: v.tobytes() for k, v in fold.arrays.items()} for fold in (first, second)]
    aggregator.merge(first, second)
    aggregator.add(first, updates_of([3], rows[[3]]))
    aggregator.finish(first, noise())
    assert [{k: v.tobytes() for k, v in fold.arrays.items()} for fold in (first, second)] == before
    np.testing.assert_array_equal(rows, ALL)


@every_aggregator
def test_an_absent_client_leaves_what_the_others_added(aggregator):
    """Without client 4 the result is that of a federation that never heard of it."""
    others = [client for client in range(CLIENTS) if client != 4]
    with_absent = aggregator.zero(PARAMETERS)
    for client in range(CLIENTS):
        if client != 4:
            with_absent = aggregator.merge(with_absent, fold_of(aggregator, [client]))
    empty = aggregator.add(aggregator.zero(PARAMETERS), updates_of([], ALL[[]]))
    with_absent = aggregator.merge(with_absent, empty)
    assert finished(aggregator, with_absent) == finished(aggregator, fold_of(aggregator, others))


@every_aggregator
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 3, PARAMETERS - 1])
def test_a_non_finite_update_is_a_zero_update_and_the_others_keep_their_bits(aggregator, value, position):
    bad, zero = ALL.copy(), ALL.copy()
    bad[4, position] = value
    zero[4] = 0.0
    everyone = list(range(CLIENTS))
    result = finished(aggregator, fold_of(aggregator, everyone, bad))
    assert result == finished(aggregator, fold_of(aggregator, everyone, zero))
    assert np.isfinite(np.frombuffer(result)).all()


@every_aggregator
@pytest.mark.parametrize("value", [0.0, 1e30, 5e-324, -1e300])
def test_extreme_and_all_zero_updates_give_a_finite_result(aggregator, value):
    extreme = ALL.copy()
    extreme[4] = value
    assert np.isfinite(
        np.frombuffer(finished(aggregator, fold_of(aggregator, list(range(CLIENTS)), extreme)))
    ).all()
    nothing = np.zeros_like(ALL)
    assert np.isfinite(np.frombuffer(finished(aggregator, fold_of(aggregator, [0, 1], nothing)))).all()


@every_aggregator
def test_a_round_without_clients_has_a_finite_result(aggregator):
    assert np.isfinite(aggregator.finish(aggregator.zero(PARAMETERS), noise())).all()


@every_aggregator
def test_a_fold_survives_a_trip_as_plain_bytes(aggregator):
    """Any transport may carry it: names, shapes and dtypes are all there is."""
    fold = fold_of(aggregator, [0, 3])
    arrived = Fold(
        arrays={k: np.frombuffer(v.tobytes(), v.dtype).reshape(v.shape) for k, v in fold.arrays.items()}
    )
    assert finished(aggregator, aggregator.merge(arrived, fold_of(aggregator, [5]))) == finished(
        aggregator, fold_of(aggregator, [0, 3, 5])
    )


class TestChoice:
    @pytest.mark.parametrize("name", UNPROVEN)
    def test_no_proven_sensitivity_no_client_level_claim(self, name):
        with pytest.raises(
            ConfigError, match=r"no proven sensitivity.*noisy_mean.*privacy.client.epsilon = inf"
        ):
            build_aggregator(name, plan_of(1.0))
        assert build_aggregator(name, plan_of(math.inf)).name == name

    def test_only_the_noisy_mean_is_proven(self):
        assert set(RULES) - set(UNPROVEN) == {"noisy_mean"}

    def test_what_carries_a_claim_is_what_has_the_proof(self):
        built = build_aggregator("noisy_mean", plan_of(1.0))
        assert built.proven_sensitivity
        assert (built.clip, built.noise, built.bits, built.divisor) == (1.5, 2.0, 40, 4.5)

    def test_without_a_client_target_the_noisy_mean_is_plain_averaging(self):
        assert build_aggregator("noisy_mean", plan_of(math.inf)).name == "fedavg"

    @pytest.mark.parametrize(
        ("asked", "near"), [("noisy-mean", "noisy_mean"), ("meadian", "median"), ("FedAvg", "fedavg")]
    )
    def test_an_unknown_name_gets_the_nearest_one(self, asked, near):
        with pytest.raises(ConfigError, match=f"{asked}.*is not known.*did you mean '{near}'"):
            build_aggregator(asked, plan_of(math.inf))

    def test_a_name_near_to_none_gets_the_list(self):
        with pytest.raises(ConfigError, match="choose one of noisy_mean, fedavg, median"):
            build_aggregator("zzz", plan_of(math.inf))
