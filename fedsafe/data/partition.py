"""Spreads records over clients: every record goes to exactly one client, and every client has at least one.

The same seed gives proportional shards of any label vector: sizes and label mixes are drawn from streams of
their own, by inversion, so that client 17 of the training records and client 17 of the evaluation records
look alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.client_rows import ClientRows
from fedsafe.data.client_sizes import client_sizes
from fedsafe.data.dataset import Indices, Texts
from fedsafe.data.flower_partition import PREFIX, flower_partition
from fedsafe.data.label_skew import dirichlet, few_classes
from fedsafe.data.natural import by_holder, holder_column
from fedsafe.data.options import known, plugin_path, positive, whole
from fedsafe.errors import ConfigError, DataError
from fedsafe.extensions import call, one_line
from fedsafe.rng import public_generator

_WHERE = "federation.partition"
_KEYS: Mapping[str, tuple[str, ...]] = {
    "iid": ("name", "sizes"),
    "contiguous": ("name", "sizes"),
    "dirichlet": ("name", "by", "alpha", "sizes"),
    "classes": ("name", "per_client"),
    "quantity": ("name", "alpha"),
    "natural": ("name", "by"),
}


def partition(
    labels: NDArray[Any],
    clients: int | None,
    spec: Mapping[str, Any],
    seed: int,
    *,
    holders: Texts | None = None,
) -> Sequence[Indices]:
    """Which records each client holds.

    Args:
        labels: ``(n,)`` class indices; or the targets of a task of another kind, ``(n, ...)``, which the partitions
            by label (``dirichlet``, ``classes``) refuse.
        clients: Number of clients; None only where the partition knows it (``natural``, ``flwr:``).
        spec: One of

            * ``{"name": "iid"}``: a random split;
            * ``{"name": "contiguous"}``: the first records for client 0, the next for client 1, and so on: for records
              that are in the order of their clients already. It takes no memory, however many there are;
            * ``{"name": "quantity", "alpha": 0.5}``: a random split into clients whose shares of the records are
              Dirichlet(alpha, ..., alpha): many small clients and a few large ones;
            * ``{"name": "dirichlet", "by": "label", "alpha": 1.0}``: client ``k`` has the label mix
              ``p_k ~ Dirichlet(alpha * classes * prior)``, after Hsu, Qi and Brown (2019). The mean is the
              prior; with balanced classes it is the symmetric ``Dirichlet(alpha)``. The smaller ``alpha``,
              the fewer labels a client has;
            * ``{"name": "classes", "per_client": 2}``: every client has records of at most so many labels
              (McMahan and others, 2017);
            * ``{"name": "natural", "by": "writer"}``: one client for each holder in that column of ``holders``;
            * ``{"name": "flwr:DirichletPartitioner", **options}``: a partitioner of flwr-datasets;
            * ``{"name": "package.module:function", **options}``, or the name of an entry point ``fedsafe.partitions``:
              called with ``labels`` (a read-only copy), ``clients``, ``seed`` and the options, returns the list.

            ``iid``, ``contiguous`` and ``dirichlet`` take ``"sizes"``: ``{"name": "equal"}`` (default),
            ``{"name": "lognormal", "sigma": 0.5}``, where ``sigma`` is the standard deviation of the
            logarithm of a client's size, or ``{"name": "dirichlet", "alpha": 0.5}``.
        seed: Decides everything that is random.
        holders: Natural column to ``(n,)`` names of who holds each record.

    Returns:
        One sorted int64 index array per client; disjoint, covering, none empty.

    Raises:
        ConfigError: If a name, key or value is unknown or outside its range, a task without labels is to be cut by
            label, or ``clients`` is not the number of holders.
        DataError: If there are more clients than records, no holders, or a custom function fails or returns
            something else.
    """
    labels = np.asarray(labels)
    if clients is not None:
        clients = whole(clients, "clients")
        if clients > len(labels):
            raise DataError(f"{clients} clients cannot share {len(labels)} records: each needs at least one.")
    name = spec.get("name")
    if isinstance(name, str) and name.startswith(PREFIX):
        return _checked(
            flower_partition(labels, clients, spec, seed, holders or {}), len(labels), clients, name
        )
    path = plugin_path("partition", name) if isinstance(name, str) and name not in _KEYS else None
    if path is not None:
        return _custom(path, labels, _given(clients), spec, seed)
    name = known(spec, _KEYS, _WHERE)
    if name == "natural":
        return _natural(spec, holders or {}, clients)
    clients = _given(clients)
    if name == "dirichlet":
        if spec.get("by", "label") != "label":
            raise ConfigError(f"{_WHERE}.by = {spec['by']!r}; use 'label'.")
        alpha = positive(spec.get("alpha", 1.0), f"{_WHERE}.alpha")
        sizes = client_sizes(len(labels), clients, spec.get("sizes", {"name": "equal"}), seed)
        return dirichlet(_class_indices(labels, name), sizes, alpha, seed)
    if name == "classes":
        per_client = whole(spec.get("per_client", 2), f"{_WHERE}.per_client")
        return few_classes(_class_indices(labels, name), clients, per_client, seed)
    how = spec.get("sizes", {"name": "equal"})
    if name == "quantity":
        how = {"name": "dirichlet", "alpha": positive(spec.get("alpha", 0.5), f"{_WHERE}.alpha")}
    sizes = client_sizes(len(labels), clients, how, seed)
    if name == "contiguous":
        return ClientRows.in_order(sizes)
    order = public_generator(seed, "partition order").permutation(len(labels))
    for end, size in zip(np.cumsum(sizes).tolist(), sizes.tolist(), strict=True):
        order[end - size : end].sort()
    return ClientRows.cut(order, sizes)


def _given(clients: int | None) -> int:
    if clients is None:
        raise ConfigError(
            "federation.clients is not set; only a natural partition knows its clients by itself."
        )
    return clients


def _class_indices(labels: NDArray[Any], name: str) -> NDArray[np.int64]:
    if labels.ndim != 1 or not (labels.dtype == np.bool_ or np.issubdtype(labels.dtype, np.integer)):
        raise ConfigError(
            f"{_WHERE}.name = {name!r} goes by class labels, which this task has not: use 'iid', 'quantity' or "
            f"'natural'."
        )
    return labels.astype(np.int64)


def _natural(spec: Mapping[str, Any], holders: Texts, clients: int | None) -> list[Indices]:
    by = holder_column(spec, holders)
    names, parts = by_holder(holders[by])
    if clients not in (None, len(parts)):
        raise ConfigError(
            f"federation.clients = {clients}, but the natural partition by {by!r} has {len(names)} clients. Leave "
            f"federation.clients out, or set it to {len(names)}."
        )
    return parts


def _custom(
    path: str, labels: NDArray[Any], clients: int, spec: Mapping[str, Any], seed: int
) -> list[Indices]:
    options = {key: value for key, value in spec.items() if key != "name"}
    shown = labels.copy()  # the labels that are trained on are not the function's to change
    shown.flags.writeable = False
    parts = call(path, "partition", labels=shown, clients=clients, seed=seed, **options)
    name, wanted = spec["name"], _wanted(len(labels), clients)
    if isinstance(parts, str | bytes | Mapping) or not isinstance(parts, Iterable):
        raise DataError(f"The partition {name!r} must give {wanted}: got {type(parts).__name__}.")
    read = [_indices(part, client, name, wanted) for client, part in enumerate(parts)]
    return _checked(read, len(labels), clients, name)


def _indices(part: Any, client: int, name: str, wanted: str) -> Indices:
    """Sorted indices; never by rounding, which would hide that the function computed something else."""
    try:
        found = np.asarray(part)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"The partition {name!r} must give {wanted}: client {client} cannot be read: {one_line(error)}."
        ) from error
    if found.ndim != 1 or (found.size and not np.issubdtype(found.dtype, np.integer)):
        got = f"{found.dtype} of shape {found.shape}"
        raise DataError(f"The partition {name!r} must give {wanted}: client {client} got {got}.")
    return np.sort(found.astype(np.int64))


def _wanted(n: int, clients: int | None) -> str:
    return (
        f"{'some' if clients is None else clients} non-empty one-dimensional arrays of whole numbers that hold each "
        f"of 0..{n - 1} exactly once"
    )


def _checked(parts: list[Indices], n: int, clients: int | None, name: str) -> list[Indices]:
    together = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    if (
        clients not in (None, len(parts))
        or not all(map(len, parts))
        or not np.array_equal(together, np.arange(n))
    ):
        sizes = f"{len(parts)} arrays with {len(together)} indices in all, {sum(not len(part) for part in parts)} empty"
        raise DataError(f"The partition {name!r} must give {_wanted(n, clients)}: got {sizes}.")
    return parts
