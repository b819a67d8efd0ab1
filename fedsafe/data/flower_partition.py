"""Partitioners of flwr-datasets by name, e.g. ``"flwr:DirichletPartitioner"``."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.columns import nearest
from fedsafe.data.dataset import Indices, Texts
from fedsafe.errors import ConfigError, DataError

PREFIX = "flwr:"
INSTALL = 'pip install "flwr-datasets>=0.6.1,<0.7"'
_ROW = "__row__"


def flower_partition(
    labels: NDArray[Any], clients: int | None, spec: Mapping[str, Any], seed: int, holders: Texts
) -> list[Indices]:
    """Which records each client holds, by a partitioner of flwr-datasets.

    It sees a data set with the columns ``label`` (where labels are class indices) and those of ``holders``. The
    options go to its constructor; ``num_partitions`` (from ``clients``), ``partition_by`` (``"label"``) and ``seed``
    are filled in where it takes them and they are not given.

    Args:
        labels: ``(n,)`` class indices, or other targets.
        clients: Number of clients; None leaves it to the partitioner.
        spec: ``{"name": "flwr:DirichletPartitioner", **options}``.
        seed: Seed of the partitioner.
        holders: Natural column to ``(n,)`` names.

    Raises:
        ConfigError: If flwr-datasets is not installed or has no such partitioner, or an option is unknown or missing.
        DataError: If the partitioner fails.
    """
    name = str(spec["name"]).removeprefix(PREFIX)
    kind = _partitioner(name)
    options = {key: value for key, value in spec.items() if key != "name"}
    takes = inspect.signature(kind).parameters
    for key in options:
        if key not in takes:
            raise ConfigError(
                f"federation.partition ({spec['name']}) has the unknown option {key!r}.{nearest(key, takes)} "
                f"Options: {', '.join(takes)}."
            )
    filled = {"num_partitions": clients, "partition_by": "label", "seed": seed}
    for key, value in filled.items():
        if key in takes and value is not None:
            options.setdefault(key, value)
    for key, parameter in takes.items():
        if parameter.default is inspect.Parameter.empty and key not in options:
            known = "federation.clients" if key == "num_partitions" else f"the option {key!r}"
            raise ConfigError(f"federation.partition ({spec['name']}) needs {known}: set it.")
    columns: dict[str, Any] = {_ROW: np.arange(len(labels))}
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        columns["label"] = labels
    columns |= {column: values.tolist() for column, values in holders.items()}
    try:
        partitioner = kind(**options)
        partitioner.dataset = import_module("datasets").Dataset.from_dict(columns)
        found = [partitioner.load_partition(part)[_ROW] for part in range(partitioner.num_partitions)]
    except Exception as error:  # another library's code, which may raise anything
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"The partitioner {spec['name']!r} failed: {type(error).__name__}: {reason}."
        ) from error
    return [np.sort(np.asarray(part, np.int64)) for part in found]


def _partitioner(name: str) -> Any:
    try:
        offered = import_module("flwr_datasets.partitioner")
    except ImportError as error:
        raise ConfigError(
            f"federation.partition.name = {PREFIX + name!r} needs flwr-datasets, which is not installed ({error}): "
            f"{INSTALL}."
        ) from error
    # The vertical ones cut columns, not records.
    names = [each for each in offered.__all__ if each != "Partitioner" and not each.startswith("Vertical")]
    if name not in names:
        raise ConfigError(
            f"federation.partition.name = {PREFIX + name!r}: flwr-datasets has no such partitioner."
            f"{nearest(name, names)} It has: {', '.join(names)}."
        )
    return getattr(offered, name)
