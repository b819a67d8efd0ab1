"""Partitions in which clients differ in the labels that they hold.

The same seed gives proportional shards of any label vector: sizes and label mixes are drawn from streams of
their own, by inversion, so that client 17 of the training records and client 17 of the evaluation records
look alike.
"""

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.client_sizes import Floats, Indices, log_gammas, round_to
from fedsafe.errors import ConfigError, DataError
from fedsafe.rng import public_generator

_FITTING_ROUNDS = 200


def dirichlet(labels: NDArray[np.int64], sizes: Indices, alpha: float, seed: int) -> list[Indices]:
    """Clients of the given sizes with label mixes ``p_k ~ Dirichlet(alpha * classes * prior)``.

    After Hsu, Qi and Brown (2019). The mean is the prior; with balanced classes it is the symmetric
    ``Dirichlet(alpha)``.

    Args:
        labels: ``(n,)`` class indices.
        sizes: ``(clients,)`` records of each client; they sum to ``n``.
        alpha: Concentration; the smaller, the fewer labels a client has.
        seed: Decides the draws.
    """
    return _deal(labels, _label_counts(labels, sizes, alpha, seed), seed)


def few_classes(labels: NDArray[np.int64], clients: int, per_client: int, seed: int) -> list[Indices]:
    """Every client holds records of at most ``per_client`` labels.

    The records of each label are cut into shards of nearly equal size, ``clients * per_client`` in all, and
    every client is dealt ``per_client`` of them at random (McMahan and others, 2017, whose shards may straddle
    two labels; these never do).

    Args:
        labels: ``(n,)`` class indices.
        clients: Number of clients.
        per_client: Shards of each client.
        seed: Decides the deal.

    Raises:
        ConfigError: If there are fewer shards than labels.
        DataError: If there are fewer records than shards.
    """
    available = np.bincount(labels).astype(np.int64)
    shards, present = clients * per_client, np.flatnonzero(available)
    if shards < len(present):
        raise ConfigError(
            f"federation.partition.per_client = {per_client}: {clients} clients with {per_client} label(s) each cannot "
            f"hold {len(present)} labels. Use more clients or more labels for each."
        )
    if shards > len(labels):
        raise DataError(
            f"{len(labels)} records cannot be cut into {clients} x {per_client} shards: each needs one record."
        )
    generator = public_generator(seed, "partition order")
    cut: list[Indices] = []
    for label, count in zip(present, _shards_per_label(available[present], shards), strict=True):
        cut += np.array_split(generator.permutation(np.flatnonzero(labels == label)), int(count))
    # A stream of its own: the deal of the evaluation records must not depend on how many there are.
    deal = public_generator(seed, "partition labels").permutation(shards).reshape(clients, per_client)
    return [np.sort(np.concatenate([cut[shard] for shard in hand])) for hand in deal]


def _shards_per_label(available: Indices, shards: int) -> Indices:
    """About proportional to the records, at least one and at most the records of each; they sum to ``shards``."""
    counts = round_to(shards * available / available.sum(), shards)
    counts = np.clip(counts, 1, available)
    while (surplus := int(counts.sum()) - shards) > 0:
        counts[np.argmax(np.where(counts > 1, counts / available, -np.inf))] -= 1
    for _ in range(-surplus):
        counts[np.argmin(np.where(counts < available, counts / available, np.inf))] += 1
    return counts


def _label_counts(labels: NDArray[np.int64], sizes: Indices, alpha: float, seed: int) -> Indices:
    """``(clients, classes)`` records: rows sum to ``sizes``, columns to how often each label occurs."""
    available = np.bincount(labels).astype(np.int64)
    concentration = available / len(labels) * (alpha * np.count_nonzero(available))
    log_mix = log_gammas(np.tile(concentration, (len(sizes), 1)), seed, "partition labels")
    return _round_both(_fit(log_mix, sizes, available), sizes, available)


def _fit(log_mix: Floats, sizes: Indices, available: Indices) -> Floats:
    """``(clients, classes)`` expected counts that meet both margins (nearly; the rounding settles the rest).

    One factor per class tilts all mixes alike, as in iterative proportional fitting (Deming and Stephan, 1940).
    A tilt moves the clients that are nearest to changing their label and leaves pure clients pure. Its steps
    follow signs only (Riedmiller and Braun, 1993): for a small alpha the sums hardly move until they jump.
    """
    tilt, last = np.zeros(len(available)), np.zeros(len(available))
    step = np.ones(len(available))
    best, least = np.empty(0), np.inf
    for _ in range(_FITTING_ROUNDS):
        logits = log_mix + tilt
        mix = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = mix * (sizes / mix.sum(axis=1))[:, None]
        excess = expected.sum(axis=0) - available
        if (worst := float(np.abs(excess).max())) < least:
            best, least = expected, worst
        if least < 0.1:
            break
        sign = np.sign(excess)
        step = np.where(sign * last < 0, step * 0.5, np.minimum(step * 1.5, 1e12))
        tilt, last = tilt - sign * step, sign
    return best


def _round_both(expected: Floats, sizes: Indices, available: Indices) -> Indices:
    """Whole counts near ``expected`` with exactly these row and column sums."""
    counts = np.stack([round_to(row, int(size)) for row, size in zip(expected, sizes, strict=True)])
    while (surplus := counts.sum(axis=0) - available).any():
        over, under = int(surplus.argmax()), int(surplus.argmin())
        gain = (counts[:, over] - expected[:, over]) - (counts[:, under] - expected[:, under])
        client = int(np.where(counts[:, over] > 0, gain, -np.inf).argmax())
        counts[client, over] -= 1
        counts[client, under] += 1
    return counts


def _deal(labels: NDArray[np.int64], counts: Indices, seed: int) -> list[Indices]:
    generator = public_generator(seed, "partition order")
    hands: list[list[Indices]] = [[] for _ in counts]
    for label, column in enumerate(counts.T):
        order = generator.permutation(np.flatnonzero(labels == label))
        for hand, part in zip(hands, np.split(order, np.cumsum(column)[:-1]), strict=True):
            hand.append(part)
    return [np.sort(np.concatenate(hand)) for hand in hands]
