"""Who masks with whom, and how many must stay: a random graph on which every client chooses its own neighbours.

Each client chooses ``k`` of the others at random, masks with them and with those that chose it, and deals shares of
its secrets to those that it chose (the k-out graph of Bell et al., 2020, for servers that do not follow the protocol:
a server that picked the graph could surround a client with corrupt ones). With ``k`` one less than the clients this
is the complete graph of Bonawitz et al. (2017), which is taken where no smaller one is safe.

For ``n`` clients of which ``c`` are corrupt, the numbers are the least ``k`` such that, but for the failure
probability,

* no honest client chooses more than ``c'`` corrupt ones: hypergeometric, over all honest clients;
* ``2 t > k + c'``: no two sets of ``t`` neighbours that answer differently about one client exist;
* every set of honest survivors that no mask joins to the others holds more than half of the honest clients, so that
  there is one set only. All of its members have ``r = t - c'`` honest survivors of their choice *in* it, since nobody
  helps to unmask a client that has not. That any set of ``s`` is such a one has a probability of at most ``C(n-c, s)
  P[H >= r]^s`` with ``H`` hypergeometric (``k`` drawn of ``n - 1``, ``s - 1`` of them in the set);
* of the planned dropouts, every client's choice keeps ``t``: hypergeometric, for a probability of its own, which
  costs a round and no privacy.

More than ``(n + c) / 2`` clients must have signed one list of survivors before anything is unmasked: then no two
lists can have so many signatures.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from fedsafe.errors import ConfigError

# Probability that the graph of a round lets anything but the sum of all be learnt: 2^-40.
SECURITY = 40.0
# Probability that a round is lost with no more dropouts than planned.
LOSS = 1e-6
# So many clients or fewer all mask with each other: it costs little, and any of them may be the ones that drop out.
FEW = 64


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The numbers of a round.

    Args:
        clients: That advertised keys.
        neighbours: That each client chooses, k.
        threshold: Shares that a secret is recovered from, t.
        signatures: Of one list of survivors, before anything is unmasked.
    """

    clients: int
    neighbours: int
    threshold: int
    signatures: int

    @property
    def complete(self) -> bool:
        """Whether everybody masks with everybody."""
        return self.neighbours == self.clients - 1


@functools.lru_cache(maxsize=64)
def graph_for(clients: int, *, corrupt: int, minimum: int, dropouts: float) -> Graph:
    """The least graph that is safe, and that the planned dropouts do not break.

    Args:
        clients: n, those that advertised keys.
        corrupt: c, the most of them that work with the server.
        minimum: The fewest whose sum may be unmasked.
        dropouts: The share of clients that may be lost between the first stage and the last, from 0 to below 1; no more
            are reckoned with than may be.

    Raises:
        ConfigError: There are fewer clients than must stay.
    """
    honest_majority = (clients + corrupt) // 2 + 1
    signatures = max(minimum, honest_majority, 2)
    if clients < signatures:
        raise ConfigError(
            f"secure aggregation needs {signatures} clients that stay, {corrupt} corrupt ones reckoned with, and has "
            f"{clients}: let more clients take part, or plan for fewer corrupt clients or a smaller minimum"
        )
    lost = min(planned_losses(clients, dropouts), clients - signatures)
    if clients <= FEW:
        return _complete(clients, corrupt, signatures)
    made = functools.partial(_feasible, clients, corrupt, lost)
    low, high = 1, 2
    while high < clients - 1 and not made(high):
        low, high = high, 2 * high
    if high >= clients - 1:
        return _complete(clients, corrupt, signatures)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if made(middle) else (middle, high)
    return Graph(clients=clients, neighbours=high, threshold=made(high), signatures=signatures)


def planned_losses(clients: int, dropouts: float) -> int:
    """How many of so many clients the planned share is."""
    return math.floor(dropouts * clients + 1e-9)


def _complete(clients: int, corrupt: int, signatures: int) -> Graph:
    neighbours = clients - 1
    threshold = (neighbours + min(corrupt, neighbours)) // 2 + 1
    # Nobody holds a share of its own: one more than the threshold must stay.
    return Graph(
        clients=clients,
        neighbours=neighbours,
        threshold=threshold,
        signatures=max(signatures, threshold + 1),
    )


def _feasible(clients: int, corrupt: int, lost: int, neighbours: int) -> int:
    """The threshold for so many neighbours, or 0 if there is none."""
    honest = clients - corrupt
    allowed = -(SECURITY + 1.0) * math.log(2.0)
    known = _least(log_tails(clients - 1, corrupt, neighbours), allowed - math.log(honest))
    gone = _least(log_tails(clients - 1, lost, neighbours), math.log(LOSS / clients))
    threshold = neighbours - gone
    if 2 * threshold <= neighbours + known:
        return 0
    return threshold if log_split(clients, honest, neighbours, threshold - known) <= allowed else 0


def _least(tails: NDArray[np.float64], allowed: float) -> int:
    """The smallest x for which more than x have a probability of at most ``exp(allowed)``."""
    return int(np.argmax(np.append(tails[1:], -np.inf) <= allowed))


def log_tails(population: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """``(drawn + 1,)`` logarithms of the probabilities that at least 0, 1, ... of the drawn are marked."""
    found = np.arange(drawn + 1.0)
    masses = (
        _log_choose(marked, found)
        + _log_choose(population - marked, drawn - found)
        - _log_choose(population, float(drawn))
    )
    tails: NDArray[np.float64] = np.logaddexp.accumulate(masses[::-1])[::-1]
    return tails


def log_split(clients: int, honest: int, neighbours: int, inside: int) -> float:
    """Logarithm of a bound on the probability that honest clients fall apart into sets that no mask joins.

    Args:
        clients: n.
        honest: Of them.
        neighbours: k.
        inside: r, the honest survivors of its choice that each client has in its own set.
    """
    terms = [
        float(_log_choose(honest, float(size)))
        + size * float(log_tails(clients - 1, size - 1, neighbours)[inside])
        for size in range(inside + 1, honest // 2 + 1)
    ]
    return float(logsumexp(terms)) if terms else -math.inf


def _log_choose(of: float, taken: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Logarithm of the binomial coefficient; minus infinity where there is no such choice."""
    taken = np.asarray(taken)
    possible = (taken >= 0) & (taken <= of)
    inside = np.where(possible, taken, 0.0)
    chosen: NDArray[np.float64] = np.where(
        possible, gammaln(of + 1.0) - gammaln(inside + 1.0) - gammaln(of - inside + 1.0), -np.inf
    )
    return chosen
