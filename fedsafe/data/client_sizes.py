"""How many records each client of a partition has."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.options import known, positive
from fedsafe.rng import public_generator

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

_KEYS: Mapping[str, tuple[str, ...]] = {
    "equal": ("name",),
    "lognormal": ("name", "sigma"),
    "dirichlet": ("name", "alpha"),
}


def client_sizes(n: int, clients: int, spec: Any, seed: int) -> Indices:
    """``(clients,)`` client sizes, at least 1, that sum to ``n``.

    Args:
        n: Number of records, at least ``clients``.
        clients: Number of clients.
        spec: ``{"name": "equal"}``; ``{"name": "lognormal", "sigma": 0.5}``, where ``sigma`` is the standard deviation
            of the logarithm of a client's size; or ``{"name": "dirichlet", "alpha": 0.5}``, where the shares are
            Dirichlet(alpha, ..., alpha), the quantity skew of Li, Diao, Chen and He (2022).
        seed: Decides the draws.

    Raises:
        ConfigError: If a name, key or value is unknown or outside its range.
    """
    where = "federation.partition.sizes"
    name = known(spec, _KEYS, where)
    weights = np.ones(clients)
    if name == "lognormal":
        sigma = positive(spec.get("sigma", 0.5), f"{where}.sigma")
        normal = public_generator(seed, "partition sizes").standard_normal(clients)
        weights = np.exp(sigma * (normal - normal.max()))
    elif name == "dirichlet":
        alpha = positive(spec.get("alpha", 0.5), f"{where}.alpha")
        logs = log_gammas(np.full((clients, 1), alpha), seed, "partition sizes")[:, 0]
        weights = np.exp(logs - logs.max())
    share = n * weights / weights.sum()
    # A client below one record is raised to one, which the others pay for; that may push further ones below.
    small = np.zeros(clients, dtype=np.bool_)
    while (grown := small | (share < 1.0)).any() and not np.array_equal(grown, small):
        small = grown
        rest = weights[~small].sum()
        share = np.where(small, 1.0, weights * ((n - small.sum()) / rest if rest else 0.0))
    return round_to(share, n)


def round_to(share: Floats, total: int) -> Indices:
    """Whole numbers that sum to ``total``, each within one of ``share`` (largest remainders)."""
    whole = np.floor(share).astype(np.int64)
    left = total - int(whole.sum())
    whole[np.argsort(whole - share, kind="stable")[:left]] += 1
    return whole


def log_gammas(concentration: Floats, seed: int, purpose: str) -> Floats:
    """Logarithms of gamma draws of the given shapes, -inf where the shape is 0; rows normalised are Dirichlet draws.

    Each is drawn by inversion, so that similar concentrations give similar draws; logarithms, because draws of
    a small concentration underflow.
    """
    from scipy.special import gammaincinv, gammaln

    uniform = 1.0 - public_generator(seed, purpose).random(concentration.shape)
    shape = np.where(concentration > 0, np.maximum(concentration, 1e-9), 1.0)
    # Where the gamma underflows its lower tail is exact enough: u = x^a / Gamma(a + 1).
    tail = (np.log(uniform) + gammaln(shape + 1.0)) / shape
    gamma = gammaincinv(shape, uniform)
    logs = np.where(gamma > 1e-200, np.log(np.maximum(gamma, 1e-200)), tail)
    return np.where(concentration > 0, logs, -np.inf)
