"""Spreads records over clients: every record goes to exactly one client, and every client has at least one.

The same seed gives proportional shards of any label vector: sizes and label mixes are drawn from streams of
their own, by inversion, so that client 17 of the training records and client 17 of the evaluation records
look alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.columns import nearest
from fedsafe.data.importing import call
from fedsafe.errors import ConfigError, DataError
from fedsafe.rng import public_generator

Indices = NDArray[np.int64]
_Floats = NDArray[np.float64]

_KEYS: Mapping[str, tuple[str, ...]] = {
    "iid": ("name", "sizes"),
    "dirichlet": ("name", "by", "alpha", "sizes"),
}
_SIZE_KEYS: Mapping[str, tuple[str, ...]] = {"equal": ("name",), "lognormal": ("name", "sigma")}
_FITTING_ROUNDS = 200


def partition(labels: NDArray[np.int64], clients: int, spec: Mapping[str, Any], seed: int) -> list[Indices]:
    """Which records each client holds.

    Args:
        labels: ``(n,)`` class indices.
        clients: Number of clients.
        spec: One of

            * ``{"name": "iid"}``: a random split;
            * ``{"name": "dirichlet", "by": "label", "alpha": 1.0}``: client ``k`` has the label mix
              ``p_k ~ Dirichlet(alpha * classes * prior)``, after Hsu, Qi and Brown (2019). The mean is the
              prior; with balanced classes it is the symmetric ``Dirichlet(alpha)``. The smaller ``alpha``,
              the fewer labels a client has;
            * ``{"name": "package.module:function", **options}``: called with ``labels``, ``clients``,
              ``seed`` and the options, returns the list.

            The first two take ``"sizes"``: ``{"name": "equal"}`` (default), or
            ``{"name": "lognormal", "sigma": 0.5}``, where ``sigma`` is the standard deviation of the
            logarithm of a client's size.
        seed: Decides everything that is random.

    Returns:
        One sorted int64 index array per client; disjoint, covering, none empty.

    Raises:
        ConfigError: If a name, key or value is unknown or outside its range.
        DataError: If there are more clients than records, or a custom function fails or returns
            something else.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if isinstance(clients, bool) or not isinstance(clients, int | np.integer) or clients < 1:
        raise ConfigError(f"clients = {clients!r} is not a whole number of at least 1.")
    if clients > len(labels):
        raise DataError(f"{clients} clients cannot share {len(labels)} records: each needs at least one.")
    name = spec.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"federation.partition = {dict(spec)!r} needs a `name`: {', '.join(_KEYS)}.")
    if ":" in name:
        return _custom(labels, clients, spec, seed)
    _known(name, _KEYS, "federation.partition", spec)
    sizes = _sizes(len(labels), clients, spec.get("sizes", {"name": "equal"}), seed)
    if name == "iid":
        order = public_generator(seed, "partition order").permutation(len(labels))
        return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]
    if spec.get("by", "label") != "label":
        raise ConfigError(f"federation.partition.by = {spec['by']!r}; use 'label'.")
    alpha = _positive(spec.get("alpha", 1.0), "federation.partition.alpha")
    counts = _label_counts(labels, sizes, alpha, seed)
    return _deal(labels, counts, seed)


def _known(name: str, keys: Mapping[str, Sequence[str]], where: str, table: Mapping[str, Any]) -> None:
    if name not in keys:
        raise ConfigError(
            f"{where}.name = {name!r} is unknown.{nearest(name, keys)} Names: {', '.join(keys)}."
        )
    for key in table:
        if key not in keys[name]:
            hint = nearest(key, keys[name])
            raise ConfigError(
                f"{where} ({name}) has the unknown key {key!r}.{hint} Keys: {', '.join(keys[name])}."
            )


def _positive(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"{where} = {value!r} is not a positive number.")
    return float(value)


def _sizes(n: int, clients: int, spec: Any, seed: int) -> Indices:
    """``(clients,)`` client sizes, at least 1, that sum to ``n``."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise ConfigError(f"federation.partition.sizes = {spec!r} needs a `name`: {', '.join(_SIZE_KEYS)}.")
    _known(spec["name"], _SIZE_KEYS, "federation.partition.sizes", spec)
    weights = np.ones(clients)
    if spec["name"] == "lognormal":
        sigma = _positive(spec.get("sigma", 0.5), "federation.partition.sizes.sigma")
        normal = public_generator(seed, "partition sizes").standard_normal(clients)
        weights = np.exp(sigma * (normal - normal.max()))
    share = n * weights / weights.sum()
    # A client below one record is raised to one, which the others pay for; that may push further ones below.
    small = np.zeros(clients, dtype=np.bool_)
    while (grown := small | (share < 1.0)).any() and not np.array_equal(grown, small):
        small = grown
        rest = weights[~small].sum()
        share = np.where(small, 1.0, weights * ((n - small.sum()) / rest if rest else 0.0))
    return _round_to(share, n)


def _round_to(share: _Floats, total: int) -> Indices:
    """Whole numbers that sum to ``total``, each within one of ``share`` (largest remainders)."""
    whole = np.floor(share).astype(np.int64)
    left = total - int(whole.sum())
    whole[np.argsort(whole - share, kind="stable")[:left]] += 1
    return whole


def _label_counts(labels: NDArray[np.int64], sizes: Indices, alpha: float, seed: int) -> Indices:
    """``(clients, classes)`` records: rows sum to ``sizes``, columns to how often each label occurs."""
    available = np.bincount(labels).astype(np.int64)
    concentration = available / len(labels) * (alpha * np.count_nonzero(available))
    log_mix = _log_dirichlet(concentration, len(sizes), seed)
    return _round_both(_fit(log_mix, sizes, available), sizes, available)


def _log_dirichlet(concentration: _Floats, clients: int, seed: int) -> _Floats:
    """``(clients, classes)`` logarithms of unnormalised Dirichlet draws, -inf for absent classes.

    Each is a gamma by inversion, so that similar concentrations give similar draws; logarithms, because draws of
    a small concentration underflow.
    """
    from scipy.special import gammaincinv, gammaln

    uniform = 1.0 - public_generator(seed, "partition labels").random((clients, len(concentration)))
    shape = np.where(concentration > 0, np.maximum(concentration, 1e-9), 1.0)
    # Where the gamma underflows its lower tail is exact enough: u = x^a / Gamma(a + 1).
    tail = (np.log(uniform) + gammaln(shape + 1.0)) / shape
    gamma = gammaincinv(shape, uniform)
    logs = np.where(gamma > 1e-200, np.log(np.maximum(gamma, 1e-200)), tail)
    return np.where(concentration > 0, logs, -np.inf)


def _fit(log_mix: _Floats, sizes: Indices, available: Indices) -> _Floats:
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


def _round_both(expected: _Floats, sizes: Indices, available: Indices) -> Indices:
    """Whole counts near ``expected`` with exactly these row and column sums."""
    counts = np.stack([_round_to(row, int(size)) for row, size in zip(expected, sizes, strict=True)])
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


def _custom(labels: NDArray[np.int64], clients: int, spec: Mapping[str, Any], seed: int) -> list[Indices]:
    options = {key: value for key, value in spec.items() if key != "name"}
    parts = call(spec["name"], "partition", labels=labels, clients=clients, seed=seed, **options)
    parts = [np.sort(np.asarray(part, dtype=np.int64)) for part in parts]
    together = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    if (
        len(parts) != clients
        or not all(map(len, parts))
        or not np.array_equal(together, np.arange(len(labels)))
    ):
        raise DataError(
            f"The partition {spec['name']!r} must give {clients} non-empty index arrays that hold each of "
            f"0..{len(labels) - 1} exactly once."
        )
    return parts
