"""The numbers of the graph: each bound against counting, and against graphs that are drawn."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from fedsafe.aggregation.secure import Graph, SecureParameters, graph
from fedsafe.aggregation.secure.graph import graph_for, log_split, log_tails
from fedsafe.errors import ConfigError
from fedsafe.privacy.mechanisms import DistributedMechanism


@pytest.mark.parametrize(
    ("population", "marked", "drawn"), [(20, 5, 7), (999, 100, 60), (40, 0, 9), (10, 10, 4)]
)
def test_tails_are_those_of_the_hypergeometric_law(population, marked, drawn):
    found = np.exp(log_tails(population, marked, drawn))
    expected = stats.hypergeom.sf(np.arange(drawn + 1) - 1, population, marked, drawn)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-300)


def test_the_bound_on_falling_apart_is_above_what_happens():
    """Every choice of two of five neighbours by six honest clients: some leave two triangles, and the bound says so."""
    drawn = np.random.default_rng(0)
    apart, trials = 0, 1500
    for _ in range(trials):
        chosen = [drawn.choice([o for o in range(6) if o != c], 2, replace=False) for c in range(6)]
        apart += any(
            all(set(chosen[c]) <= set(part) for c in part) for part in itertools.combinations(range(6), 3)
        )
    bound = math.exp(log_split(6, 6, 2, 2))
    assert bound == pytest.approx(20 * 0.1**3)
    assert apart / trials < bound + 3 * math.sqrt(bound / trials)


def test_nobody_is_apart_who_has_more_than_half_of_the_honest_in_its_set():
    assert log_split(20, 20, 12, 10) == -math.inf


@pytest.mark.parametrize("clients", [100, 400])
@pytest.mark.parametrize(("corrupt", "dropouts"), [(0.0, 0.1), (0.05, 0.1), (0.0, 0.25)])
def test_the_promises_of_a_sparse_graph_hold_by_their_oracles(clients, corrupt, dropouts):
    bad, lost = int(corrupt * clients), int(dropouts * clients)
    found = graph_for(clients, corrupt=bad, minimum=clients // 3, dropouts=dropouts)
    k, t = found.neighbours, found.threshold
    assert not found.complete
    assert 2 * found.signatures > clients + bad
    tails = stats.hypergeom.sf(np.arange(k + 1), clients - 1, bad, k) * (clients - bad)
    known = int(np.argmax(tails <= 2.0**-40)) if bad else 0
    assert 2 * t > k + known
    assert log_split(clients, clients - bad, k, t - known) <= -40 * math.log(2)
    assert clients * stats.hypergeom.sf(k - t, clients - 1, lost, k) < 1e-6


def test_more_clients_have_relatively_fewer_neighbours():
    shares = [graph_for(n, corrupt=0, minimum=2, dropouts=0.1).neighbours / n for n in (100, 300, 1000)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.15


@pytest.mark.parametrize("clients", range(2, 65))
@pytest.mark.parametrize("corrupt", [0, 1])
def test_few_clients_all_mask_with_each_other_and_those_who_must_stay_can_unmask(clients, corrupt):
    if clients <= corrupt + 1:
        return
    found = graph_for(clients, corrupt=corrupt, minimum=min(corrupt + 2, clients), dropouts=0.0)
    assert found.complete
    assert 2 * found.threshold > clients - 1 + corrupt
    assert 2 * found.signatures > clients + corrupt
    assert found.threshold <= found.signatures - 1 < clients


def test_where_no_sparse_graph_is_safe_all_mask_with_each_other():
    assert graph_for(100, corrupt=20, minimum=50, dropouts=0.3).complete


@pytest.mark.parametrize(("clients", "corrupt", "minimum"), [(1, 0, 2), (9, 0, 10), (10, 10, 5), (4, 3, 5)])
def test_too_few_clients_are_refused(clients, corrupt, minimum):
    with pytest.raises(ConfigError, match=f"has {clients}"):
        graph_for(clients, corrupt=corrupt, minimum=minimum, dropouts=0.25)


def test_planned_dropouts_that_leave_too_few_are_refused():
    parameters = SecureParameters(values=5, modulus=16, minimum=15, dropouts=0.25)
    assert isinstance(parameters.require_room(20), Graph)
    with pytest.raises(ConfigError, match="leaves 13 of 17 clients, and 15 must stay"):
        parameters.require_room(17)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"values": 0}, "at least 1"),
        ({"modulus": 1}, "2 to 62"),
        ({"modulus": 63}, "2 to 62"),
        ({"corrupt": 10}, "no honest one"),
        ({"corrupt": -1}, "no honest one"),
        ({"corrupt": 9}, "single honest client"),
        ({"minimum": 1}, "single honest client"),
        ({"dropouts": 1.0}, "below 1"),
        ({"dropouts": math.nan}, "below 1"),
    ],
)
def test_parameters_out_of_range_are_refused(changes, why):
    with pytest.raises(ConfigError, match=why):
        SecureParameters(**{"values": 5, "modulus": 16, "minimum": 10, **changes})


def test_they_follow_the_noise_that_clients_add():
    mechanism = DistributedMechanism(clip=1.0, noise=1.0, bits=8, modulus=28, minimum=10, corrupt=3)
    found = SecureParameters.of(mechanism, 100, dropouts=0.1)
    assert (found.values, found.modulus, found.minimum, found.corrupt) == (128, 28, 10, 3)


def test_the_cache_is_of_numbers_alone():
    graph.graph_for.cache_clear()
    first = graph_for(70, corrupt=0, minimum=10, dropouts=0.1)
    assert first is graph_for(70, corrupt=0, minimum=10, dropouts=0.1)
