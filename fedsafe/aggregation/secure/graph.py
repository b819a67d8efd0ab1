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
* fewer than ``m`` honest clients are on the list of survivors and not in that set, as are those whose shares a server
  delivers to nobody and whose choosers it has dropped: all others of the list have chosen none of them, and ``t`` of
  the rest. For one set of ``b`` clients in the sum and ``m`` outside, that has a probability of at most
  ``(P[none of m] P[H >= t])^b`` with ``H`` hypergeometric (``k`` drawn of ``n - 1 - m``, ``b - 1 + c`` of them in the
  sum or corrupt). So many more than the minimum must sign, and the sum has the honest clients that are counted on;
* of the planned dropouts, every client's choice keeps ``t``: hypergeometric, for a probability of its own, which
  costs a round and no privacy.

More than ``(n + c) / 2`` clients must have signed one list of survivors before anything is unmasked: then no two
lists can have so many signatures.

The clients that the *masks* stand are more than those that the noise reckons with, where that is free: the shares and
signatures of a complete graph are as many as the planned dropouts leave, and a sparse graph reckons with a twentieth
of the clients where such a one exists. :attr:`Graph.tolerates` is how many it comes to.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp, rel_entr

from fedsafe.errors import ConfigError

# Probability that the graph of a round lets anything but the sum of all be learnt: 2^-40.
SECURITY = 40.0
# Probability that a round is lost with no more dropouts than planned.
LOSS = 1e-6
# So many clients or fewer all mask with each other: it costs little, and any of them may be the ones that drop out.
FEW = 64
# A sparse graph reckons with one corrupt client in so many at least, whatever the noise reckons with.
RECKONED = 20
_ALLOWED = -(SECURITY + 1.0) * math.log(2.0)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The numbers of a round.

    Args:
        clients: That advertised keys.
        neighbours: That each client chooses, k.
        threshold: Shares that a secret is recovered from, t.
        signatures: Of one list of survivors, before anything is unmasked.
        outside: The most honest clients that a server can have on the list and not in the sum, m - 1.
    """

    clients: int
    neighbours: int
    threshold: int
    signatures: int
    outside: int = 0

    @property
    def complete(self) -> bool:
        """Whether everybody masks with everybody."""
        return self.neighbours == self.clients - 1

    @functools.cached_property
    def tolerates(self) -> int:
        """The most clients that may work with a lying server without its learning anything but sums.

        What they know of the noise, their own shares, is another matter: see
        :class:`~fedsafe.privacy.mechanisms.DistributedMechanism`.
        """
        most = min(2 * self.signatures - self.clients - 1, self.signatures - 2)
        if self.complete:
            return min(most, 2 * self.threshold - self.neighbours - 1)
        low, high = -1, most + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (middle, high)
                if _hides(self.clients, middle, self.neighbours, self.threshold)
                else (low, middle)
            )
        return low


@functools.lru_cache(maxsize=64)
def graph_for(clients: int, *, corrupt: int, minimum: int, dropouts: float) -> Graph:
    """The least graph that is safe, and that the planned dropouts do not break.

    Args:
        clients: n, those that advertised keys.
        corrupt: c, the most of them that work with the server and tell it their shares of the noise.
        minimum: The fewest whose sum may be unmasked.
        dropouts: The share of clients that may be lost between the first stage and the last, from 0 to below 1; no more
            are reckoned with than may be.

    Raises:
        ConfigError: There are fewer clients than must stay.
    """
    signatures = max(minimum, _majority(clients, corrupt), 2)
    if clients < signatures:
        raise ConfigError(
            f"secure aggregation needs {signatures} clients that stay, {corrupt} corrupt ones reckoned with, and has "
            f"{clients}: let more clients take part, or plan for fewer corrupt clients or a smaller minimum"
        )
    planned = planned_losses(clients, dropouts)
    lost = min(planned, clients - signatures)
    if clients > FEW:
        # As many as an honest majority of those that stay allows.
        more = min(clients // RECKONED, 2 * (clients - lost) - clients - 1)
        for reckoned in (max(corrupt, more), corrupt):
            found = _sparse(clients, corrupt, reckoned, minimum, lost)
            if found is not None:
                return found
    return _complete(clients, corrupt, signatures, planned)


def _majority(clients: int, corrupt: int) -> int:
    """So many signatures that no two lists can have them."""
    return (clients + corrupt) // 2 + 1


def _sparse(clients: int, corrupt: int, reckoned: int, minimum: int, lost: int) -> Graph | None:
    """The graph of the fewest neighbours that is safe against so many; None if all must mask with each other."""

    def made(neighbours: int) -> Graph | None:
        threshold = _feasible(clients, reckoned, lost, neighbours)
        if not threshold:
            return None
        outside = _outside(clients, corrupt, neighbours, threshold)
        signatures = max(minimum + outside, _majority(clients, reckoned), 2)
        if signatures > clients - lost:
            return None
        return Graph(
            clients=clients,
            neighbours=neighbours,
            threshold=threshold,
            signatures=signatures,
            outside=outside,
        )

    low, high = 1, 2
    while high < clients - 1 and made(high) is None:
        low, high = high, 2 * high
    if high >= clients - 1:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if made(middle) is not None else (middle, high)
    return made(high)


def planned_losses(clients: int, dropouts: float) -> int:
    """How many of so many clients the planned share is."""
    return math.floor(dropouts * clients + 1e-9)


def _complete(clients: int, corrupt: int, signatures: int, planned: int) -> Graph:
    """All mask with each other, and as many shares and signatures are needed as the planned dropouts leave."""
    neighbours = clients - 1
    threshold = (neighbours + min(corrupt, neighbours)) // 2 + 1
    # Nobody holds a share of its own: one more than the threshold must stay.
    stay = max(clients - planned, signatures, threshold + 1)
    return Graph(clients=clients, neighbours=neighbours, threshold=stay - 1, signatures=stay)


def _feasible(clients: int, corrupt: int, lost: int, neighbours: int) -> int:
    """The threshold for so many neighbours, or 0 if there is none: all that planned dropouts leave to everybody."""
    gone = _least(log_tails(clients - 1, lost, neighbours), math.log(LOSS / clients))
    threshold = neighbours - gone
    return threshold if threshold > 0 and _hides(clients, corrupt, neighbours, threshold) else 0


def _hides(clients: int, corrupt: int, neighbours: int, threshold: int) -> bool:
    """Whether nothing but one sum can be learnt, but for the failure probability."""
    honest = clients - corrupt
    known = _least(log_tails(clients - 1, corrupt, neighbours), _ALLOWED - math.log(honest))
    if 2 * threshold <= neighbours + known:
        return False
    return log_split(clients, honest, neighbours, threshold - known) <= _ALLOWED


def _outside(clients: int, corrupt: int, neighbours: int, threshold: int) -> int:
    """The most honest clients that are on a list of survivors and not in its sum."""
    outside = 0
    while log_outside(clients, clients - corrupt, neighbours, threshold, outside + 1) > _ALLOWED:
        outside += 1
    return outside


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


def log_outside(clients: int, honest: int, neighbours: int, threshold: int, outside: int) -> float:
    """Logarithm of a bound on the probability that so many honest clients can be kept out of a sum by lists alone.

    Args:
        clients: n.
        honest: Of them.
        neighbours: k.
        threshold: t, the survivors of its choice that each client in the sum has.
        outside: m, clients on the list that nobody in the sum has chosen.
    """
    avoids = float(_log_choose(clients - 1.0 - outside, neighbours) - _log_choose(clients - 1.0, neighbours))
    # The sum is of more than half of the honest clients.
    sizes = np.arange(honest // 2 + 1.0, honest - outside + 1.0)
    if avoids == -math.inf or not len(sizes):
        return -math.inf
    near = np.minimum((sizes - 1.0 + clients - honest) / (clients - 1.0 - outside), 1.0)
    terms = _log_choose(honest - outside, sizes) + sizes * (
        avoids + _log_tail_bound(near, neighbours, threshold)
    )
    return float(_log_choose(honest, float(outside))) + float(logsumexp(terms))


def _log_tail_bound(marked: NDArray[np.float64], drawn: int, least: int) -> NDArray[np.float64]:
    """Above the logarithm of a hypergeometric tail (Hoeffding, 1963): minus the drawn times a divergence.

    Args:
        marked: The share of the population that is marked.
        drawn: How many are drawn.
        least: How many of these are marked.
    """
    share = least / drawn
    divergence = rel_entr(share, marked) + rel_entr(1.0 - share, 1.0 - marked)
    return np.where(share > marked, -drawn * divergence, 0.0)


def _log_choose(of: float, taken: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Logarithm of the binomial coefficient; minus infinity where there is no such choice."""
    taken = np.asarray(taken)
    possible = (taken >= 0) & (taken <= of)
    inside = np.where(possible, taken, 0.0)
    chosen: NDArray[np.float64] = np.where(
        possible, gammaln(of + 1.0) - gammaln(inside + 1.0) - gammaln(of - inside + 1.0), -np.inf
    )
    return chosen
