"""A partitioner of flwr-datasets cuts the records as it is told, and its mistakes are FedSafe's errors."""

import importlib.util
import sys

import numpy as np
import pytest

from fedsafe.data import partition
from fedsafe.data.flower_partition import INSTALL
from fedsafe.errors import ConfigError, DataError

LABELS = np.random.default_rng(0).integers(0, 4, 600)
SITES = {"site": np.array(["a", "b", "c"])[np.arange(600) % 3]}

installed = pytest.mark.skipif(
    importlib.util.find_spec("flwr_datasets") is None, reason=f"flwr-datasets is not installed: {INSTALL}"
)


@installed
@pytest.mark.parametrize(
    ("spec", "clients"),
    [
        ({"name": "flwr:DirichletPartitioner", "alpha": 0.5}, 8),
        ({"name": "flwr:IidPartitioner"}, 8),
        ({"name": "flwr:PathologicalPartitioner", "num_classes_per_partition": 2}, 8),
        ({"name": "flwr:LinearPartitioner"}, 8),
        ({"name": "flwr:SizePartitioner", "partition_sizes": [100, 500]}, None),
        ({"name": "flwr:NaturalIdPartitioner", "partition_by": "site"}, None),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_every_record_goes_to_one_client_and_the_seed_decides(spec, clients):
    parts = partition(LABELS, clients, spec, 3, holders=SITES)
    assert len(parts) == clients or clients is None
    assert all(len(part) and (np.diff(part) > 0).all() for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(600))
    again = partition(LABELS, clients, spec, 3, holders=SITES)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@installed
def test_the_options_and_the_seed_reach_the_partitioner():
    spec = {"name": "flwr:DirichletPartitioner", "alpha": 0.5}
    first, other = (partition(LABELS, 8, spec, seed) for seed in (3, 4))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    few = partition(LABELS, 8, {"name": "flwr:PathologicalPartitioner", "num_classes_per_partition": 1}, 0)
    assert {len(set(LABELS[part])) for part in few} == {1}
    by_site = partition(
        LABELS, None, {"name": "flwr:NaturalIdPartitioner", "partition_by": "site"}, 0, holders=SITES
    )
    assert sorted(set(SITES["site"][part]) for part in by_site) == [{"a"}, {"b"}, {"c"}]


@installed
@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"name": "flwr:DirichletPartitoner"}, ConfigError, "Did you mean 'DirichletPartitioner'"),
        ({"name": "flwr:VerticalEvenPartitioner"}, ConfigError, "has no such partitioner"),
        ({"name": "flwr:DirichletPartitioner"}, ConfigError, "needs the option 'alpha': set it"),
        ({"name": "flwr:DirichletPartitioner", "alhpa": 1}, ConfigError, "'alhpa'. Did you mean 'alpha'"),
        (
            {"name": "flwr:IidPartitioner", "alpha": 1},
            ConfigError,
            r"\(flwr:Iid.* has the unknown option 'alpha'",
        ),
        ({"name": "flwr:DirichletPartitioner", "alpha": "x"}, DataError, "failed: "),
        ({"name": "flwr:SizePartitioner", "partition_sizes": [100, 500]}, DataError, "must give 8 non-empty"),
    ],
)
def test_a_mistake_is_named(spec, error, message):
    with pytest.raises(error, match=message):
        partition(LABELS, 8, spec, 0)


@installed
def test_a_task_without_labels_can_be_cut_by_partitioners_that_need_none():
    targets = np.linspace(0, 1, 60, dtype=np.float32)
    assert len(partition(targets, 6, {"name": "flwr:IidPartitioner"}, 0)) == 6
    with pytest.raises(DataError, match="label"):
        partition(targets, 6, {"name": "flwr:DirichletPartitioner", "alpha": 1.0}, 0)


def test_without_flwr_datasets_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    monkeypatch.delitem(sys.modules, "flwr_datasets.partitioner", raising=False)
    with pytest.raises(ConfigError, match=r"'flwr:IidPartitioner' needs flwr-datasets, .*pip install"):
        partition(LABELS, 8, {"name": "flwr:IidPartitioner"}, 0)
