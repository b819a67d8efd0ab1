"""The worst client is exact; every other bound holds, and is at most 2 % above."""

import numpy as np
import pytest

from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting import ClientSpend, SampledGaussian, epsilon, worst_client
from fedsafe.privacy.accounting.client_bounds import SLACK, _front

DELTA = 1e-5


def exact(client: ClientSpend) -> float:
    return epsilon(SampledGaussian(rate=client.rate, noise=client.noise, count=client.steps), DELTA)


def random_clients(rng: np.random.Generator, n: int) -> list[ClientSpend]:
    return [
        ClientSpend(
            rate=float(np.exp(rng.uniform(np.log(0.003), np.log(0.2)))),
            noise=float(rng.uniform(1.5, 4.0)),
            steps=int(np.exp(rng.uniform(np.log(20), np.log(2000)))),
        )
        for _ in range(n)
    ]


def assert_bounds_hold(clients: list[ClientSpend], found) -> None:
    truths = np.array([exact(client) for client in clients])
    # A bound may sit below the figure at interval 1e-4, which is one itself, by no more than that one's own slack.
    assert (found.bounds >= truths * (1 - 1e-3) - 1e-4).all()
    assert (found.bounds <= truths * (1 + SLACK)).all()
    assert found.epsilon == pytest.approx(truths.max(), rel=1e-12)
    assert found.client == int(truths.argmax())
    assert found.bounds[found.exact] == pytest.approx(truths[found.exact], rel=1e-12)


def test_random_clients():
    clients = random_clients(np.random.default_rng(1), 10)
    found = worst_client(clients, DELTA)
    assert_bounds_hold(clients, found)
    assert found.exact.sum() == found.front < 10


def test_sizes_at_a_fixed_batch_share_buckets_within_two_percent():
    sizes = np.unique(np.round(np.geomspace(400, 440, 7)).astype(int))
    clients = [ClientSpend(rate=32 / n, noise=2.0, steps=100) for n in map(int, sizes)]
    found = worst_client(clients, DELTA)
    assert found.client == 0, "the smallest client pays most"
    assert found.front == 1
    assert_bounds_hold(clients, found)


def test_a_front_of_everyone_gets_its_worst_exactly_and_the_others_bounds():
    """Epochs: a larger client samples less, more often."""
    sizes = np.unique(np.round(np.arange(300, 381, 15)).astype(int))
    clients = [ClientSpend(rate=32 / n, noise=2.0, steps=n // 3) for n in map(int, sizes)]
    found = worst_client(clients, DELTA, most_exact=4)
    assert found.front > 4
    assert 1 <= found.exact.sum() <= 4
    assert_bounds_hold(clients, found)


def test_equal_clients_have_one_exact_figure():
    clients = [ClientSpend(rate=0.05, noise=1.5, steps=200)] * 1000
    found = worst_client(clients, DELTA)
    assert found.exact.all()
    assert np.unique(found.bounds).tolist() == [exact(clients[0])]
    assert found.accountant.startswith("PLD")
    plain = found.to_json()
    assert plain["clients"] == 1000
    assert set(plain["quantiles"].values()) == {found.epsilon}
    assert "client" not in plain, "which client pays what is private"


def test_who_releases_nothing_pays_nothing_and_no_noise_costs_everything():
    clients = [ClientSpend(rate=0.1, noise=1.0, steps=0), ClientSpend(rate=0.1, noise=2.0, steps=10)]
    assert worst_client(clients, DELTA).bounds[0] == 0.0
    found = worst_client([*clients, ClientSpend(rate=0.1, noise=0.0, steps=1)], DELTA)
    assert found.epsilon == np.inf
    assert found.client == 2


def test_the_front_is_what_nobody_exceeds():
    rng = np.random.default_rng(5)
    points = rng.integers(0, 6, size=(60, 3)).astype(float)
    points = np.unique(points, axis=0)
    slow = {
        i for i, p in enumerate(points)
        if not any(j != i and (q >= p).all() for j, q in enumerate(points))
    }  # fmt: skip
    assert set(_front(points)) == slow


def test_nobody_has_no_worst():
    with pytest.raises(ConfigError, match="at least one"):
        worst_client([], DELTA)
