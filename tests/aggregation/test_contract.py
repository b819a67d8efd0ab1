"""What every aggregator promises: a monoid, blind to packing, deaf to bad updates. A new one is tested by its name."""

import copy
import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsafe.aggregation import RULES, Aggregator, Fold, Membership, Updates, build_aggregator
from fedsafe.errors import EngineError, RecordError
from fedsafe.privacy.levels import FILTERED, ClientPlan, RecordPlan
from fedsafe.privacy.plan import PrivacyPlan
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


# Options without a default, and a minimum that one client meets.
NEEDED = {
    "capped_mean": {"cap": 20},
    "banded_mean": {"bands": 2},
    "distributed_mean": {"minimum": 1},
    "grouped_mean": {"column": "group", "weights": "adaptive"},
    "grouped_fedavg": {"column": "group", "weights": "adaptive"},
}
GROUPS = Membership.from_values(["a"] * 3 + ["b"] * 6)


def built(name: str) -> Aggregator:
    """With a client-level target if the rule can carry one: that is the path with clip and noise."""
    private = RULES[name].proven_sensitivity
    spec = {"name": name, **NEEDED.get(name, {})}
    plan = plan_of(1.0 if private else math.inf)
    if RULES[name].mechanism == FILTERED:
        plan = replace(plan, client=replace(plan.client, mechanism=FILTERED, order=16.0))
    return build_aggregator(spec, plan, learning_rate=0.5, membership=GROUPS)


def noise(round: int = 1) -> Stream:
    return Stream(KEY, StreamId(purpose="client noise", client=-1, round=round, digest=b"d"))


def updates_of(
    clients: list[int], rows: NDArray[np.float64], losses: NDArray[np.float64] | None = None
) -> Updates:
    """Every rule is offered losses and streams, as no rule may mind those that it does not need."""
    every = 0.1 + 0.3 * np.arange(CLIENTS) if losses is None else losses
    return Updates(
        clients=np.array(clients, np.int64),
        rows=rows,
        examples=np.array([10.0 + 3.0 * client for client in clients]),
        losses=every[clients],
        draws=draws_of(clients),
    )


def draws_of(clients: list[int]) -> list[Stream]:
    """Of each client, from their start."""
    return [
        Stream(KEY, StreamId(purpose="client draws", client=client, round=1, digest=b"d"))
        for client in clients
    ]


ALL = np.random.default_rng(0).normal(size=(CLIENTS, PARAMETERS))


def fold_of(aggregator: Aggregator, clients: list[int], rows: NDArray[np.float64] = ALL) -> Fold:
    return aggregator.add(aggregator.zero(PARAMETERS), updates_of(clients, rows[clients]))


def after_two_rounds(name: str) -> Aggregator:
    """With a memory, if it is a rule that has one; not every client was heard."""
    aggregator = built(name)
    aggregator.choose_noise()
    aggregator.advance(fold_of(aggregator, [0, 3, 4, 7]), noise(1))
    aggregator.choose_noise()
    aggregator.advance(fold_of(aggregator, [2, 3, 8], 0.5 - ALL), noise(2))
    return aggregator


BUILT = {name: built(name) for name in RULES}
UNPROVEN = [name for name, aggregator in BUILT.items() if not aggregator.proven_sensitivity]
REMEMBERING = [name for name, aggregator in BUILT.items() if aggregator.remembers]
CASES = [pytest.param(aggregator, id=name) for name, aggregator in BUILT.items()]
CASES += [pytest.param(after_two_rounds(name), id=f"{name} after two rounds") for name in REMEMBERING]
every_aggregator = pytest.mark.parametrize("aggregator", CASES)


def memory(aggregator: Aggregator) -> dict[str, bytes]:
    """Everything of a rule that could make the next round differ."""
    corrections = [aggregator.correction(client, PARAMETERS) for client in range(CLIENTS)]
    held = {name: array.tobytes() for name, array in aggregator.state().items()}
    return {**held, **{f"correction {i}": c.tobytes() for i, c in enumerate(corrections) if c is not None}}


def advanced(aggregator: Aggregator, fold: Fold) -> dict[str, bytes]:
    """The memory after one more round, of a copy."""
    then = copy.deepcopy(aggregator)
    then.choose_noise()
    then.advance(fold, noise(3))
    return memory(then)


def finished(aggregator: Aggregator, fold: Fold) -> bytes:
    aggregator.choose_noise()  # as the strategy does before a round is reserved
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
    both, one = aggregator.merge(zero, zero).arrays, zero.arrays
    assert {k: v.tobytes() for k, v in both.items()} == {k: v.tobytes() for k, v in one.items()}


@every_aggregator
def test_merge_is_commutative_and_associative_to_the_bit(aggregator):
    folds = [fold_of(aggregator, clients) for clients in ([0, 7], [3], [1, 2, 8])]
    results = set()
    for a, b, c in permutations(folds):
        for fold in (
            aggregator.merge(aggregator.merge(a, b), c),
            aggregator.merge(a, aggregator.merge(b, c)),
        ):
            results.add((finished(aggregator, fold), *sorted(advanced(aggregator, fold).items())))
    assert len(results) == 1


@every_aggregator
@settings(max_examples=50)  # of each rule, and of each again after two rounds
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
    at_once = fold_of(aggregator, list(range(CLIENTS)))
    assert finished(aggregator, merged) == finished(aggregator, at_once)
    assert advanced(aggregator, merged) == advanced(aggregator, at_once)


@every_aggregator
def test_folds_of_one_are_one_fold(aggregator):
    """What a deployment sends, against what a simulation's worker sends."""
    one_by_one = aggregator.zero(PARAMETERS)
    for client in range(CLIENTS):
        one_by_one = aggregator.merge(one_by_one, fold_of(aggregator, [client]))
    at_once = fold_of(aggregator, list(range(CLIENTS)))
    assert finished(aggregator, one_by_one) == finished(aggregator, at_once)
    assert advanced(aggregator, one_by_one) == advanced(aggregator, at_once)


@every_aggregator
def test_adding_and_merging_leave_their_arguments_alone(aggregator):
    first, second = fold_of(aggregator, [0, 1]), fold_of(aggregator, [2])
    rows = ALL.copy()
    before = [{k: v.tobytes() for k, v in fold.arrays.items()} for fold in (first, second)]
    known = memory(aggregator)
    aggregator.merge(first, second)
    aggregator.add(first, updates_of([3], rows[[3]]))
    aggregator.choose_noise()
    aggregator.finish(first, noise())
    assert memory(aggregator) == known, "only advance may change what is remembered"
    advanced(aggregator, first)
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
    with_bad, with_zero = (fold_of(aggregator, everyone, rows) for rows in (bad, zero))
    result = finished(aggregator, with_bad)
    assert result == finished(aggregator, with_zero)
    assert advanced(aggregator, with_bad) == advanced(aggregator, with_zero)
    assert np.isfinite(np.frombuffer(result)).all()


@every_aggregator
@pytest.mark.parametrize("value", [0.0, 1e30, 5e-324, -1e300])
def test_extreme_and_all_zero_updates_give_a_finite_result(aggregator, value):
    extreme = ALL.copy()
    extreme[4] = value
    fold = fold_of(aggregator, list(range(CLIENTS)), extreme)
    assert np.isfinite(np.frombuffer(finished(aggregator, fold))).all()
    then = copy.deepcopy(aggregator)
    then.choose_noise()
    then.advance(fold, noise(3))
    assert all(np.isfinite(array).all() for array in then.state().values())
    for client in range(CLIENTS):
        correction = then.correction(client, PARAMETERS)
        assert correction is None or np.isfinite(correction).all()
    nothing = np.zeros_like(ALL)
    assert np.isfinite(np.frombuffer(finished(aggregator, fold_of(aggregator, [0, 1], nothing)))).all()


@every_aggregator
def test_a_round_without_clients_has_a_finite_result(aggregator):
    zero = aggregator.zero(PARAMETERS)
    if aggregator.name == "distributed_mean":
        with pytest.raises(EngineError, match="0 clients of the round are left"):
            aggregator.finish(zero, noise())
        return
    aggregator.choose_noise()
    assert np.isfinite(aggregator.finish(zero, noise())).all()
    # What counts releases, or releases more than an update, moves on all the same.
    if aggregator.name not in ("adaptive_clip", "banded_mean", "chosen_noise", "grouped_mean"):
        assert advanced(aggregator, zero) == memory(aggregator)


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


@every_aggregator
def test_what_is_remembered_survives_a_trip_as_plain_bytes(aggregator):
    """A resumed run goes on with the same updates, corrections and memory."""
    other = built(aggregator.name)
    arrived = {
        name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
        for name, array in aggregator.state().items()
    }
    other.restore(arrived)
    other.recall(PARAMETERS, noise)
    fold = fold_of(aggregator, [1, 3, 6])
    assert memory(other) == memory(aggregator)
    assert finished(other, fold) == finished(aggregator, fold)
    assert advanced(other, fold) == advanced(aggregator, fold)


@every_aggregator
def test_a_state_of_something_else_is_refused(aggregator):
    with pytest.raises(RecordError):
        copy.deepcopy(aggregator).restore({"velocity": np.zeros(PARAMETERS)})


@every_aggregator
def test_only_a_rule_that_says_so_remembers(aggregator):
    moved = advanced(aggregator, fold_of(aggregator, [0, 3, 6])) != memory(aggregator)
    assert moved is aggregator.remembers
    if not aggregator.remembers:
        assert aggregator.state() == {}


@every_aggregator
def test_losses_count_where_they_are_needed_and_nowhere_else(aggregator):
    everyone = list(range(CLIENTS))
    folds = [
        aggregator.add(aggregator.zero(PARAMETERS), updates_of(everyone, ALL, losses))
        for losses in (np.linspace(0.1, 1.0, CLIENTS), np.linspace(1.0, 0.1, CLIENTS))
    ]
    told = [(finished(aggregator, fold), advanced(aggregator, fold)) for fold in folds]
    assert (told[0] != told[1]) is aggregator.needs_losses
    silent = Updates(
        clients=np.arange(CLIENTS), rows=ALL, examples=np.ones(CLIENTS), draws=draws_of(everyone)
    )
    if aggregator.needs_losses:
        # A rule with a proof noises them with the rest of what it releases.
        assert aggregator.proven_sensitivity or any("loss" in phrase for phrase in aggregator.releases), (
            "un-noised losses are named in the claim"
        )
        with pytest.raises(EngineError, match="needs the loss of each client"):
            aggregator.add(aggregator.zero(PARAMETERS), silent)
    else:
        aggregator.add(aggregator.zero(PARAMETERS), silent)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.5])
@every_aggregator
def test_a_loss_that_is_none_counts_as_a_client_without_update_or_loss(aggregator, value):
    everyone, bad, none, without = list(range(CLIENTS)), np.ones(CLIENTS), np.ones(CLIENTS), ALL.copy()
    bad[4], none[4], without[4] = value, 0.0, 0.0
    fold = aggregator.add(aggregator.zero(PARAMETERS), updates_of(everyone, ALL, bad))
    rows = without if aggregator.needs_losses else ALL
    expected = aggregator.add(aggregator.zero(PARAMETERS), updates_of(everyone, rows, none))
    assert finished(aggregator, fold) == finished(aggregator, expected)
    assert advanced(aggregator, fold) == advanced(aggregator, expected)


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e30, 1e300])
@every_aggregator
def test_extreme_losses_give_a_finite_result(aggregator, value):
    losses = np.linspace(0.1, 1.0, CLIENTS)
    losses[4] = value
    fold = aggregator.add(aggregator.zero(PARAMETERS), updates_of(list(range(CLIENTS)), ALL, losses))
    assert np.isfinite(np.frombuffer(finished(aggregator, fold))).all()
    then = copy.deepcopy(aggregator)
    then.choose_noise()
    then.advance(fold, noise(3))
    assert all(np.isfinite(array).all() for array in then.state().values())
