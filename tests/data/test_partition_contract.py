"""What every partition keeps, whoever wrote it: each record to one client, by the seed and public columns alone."""

import importlib.util

import numpy as np
import pytest

from fedsafe.data import partition
from fedsafe.data.flower_partition import INSTALL
from fedsafe.data.partition import _KEYS
from fedsafe.errors import FedSafeError

RECORDS, CLIENTS = 400, 9
LABELS = np.random.default_rng(0).integers(0, 4, RECORDS)
HOLDERS = {"site": np.array([f"s{k}" for k in range(CLIENTS)])[np.arange(RECORDS) % CLIENTS]}


def every_third(labels, clients, seed):
    """A partition of one's own."""
    return [np.arange(client, len(labels), clients) for client in range(clients)]


SPECS = {
    "iid": {"name": "iid"},
    "iid, lognormal": {"name": "iid", "sizes": {"name": "lognormal", "sigma": 0.5}},
    "contiguous": {"name": "contiguous"},
    "contiguous, lognormal": {"name": "contiguous", "sizes": {"name": "lognormal", "sigma": 0.5}},
    "quantity": {"name": "quantity", "alpha": 0.5},
    "dirichlet": {"name": "dirichlet", "alpha": 0.3},
    "classes": {"name": "classes", "per_client": 2},
    "natural": {"name": "natural", "by": "site"},
    "flwr:IidPartitioner": {"name": "flwr:IidPartitioner"},
    "flwr:DirichletPartitioner": {"name": "flwr:DirichletPartitioner", "alpha": 0.5},
    "flwr:NaturalIdPartitioner": {"name": "flwr:NaturalIdPartitioner", "partition_by": "site"},
    "import path": {"name": "test_partition_contract:every_third"},
}
# By holder or by position: there is nothing that a seed could change.
FIXED = {"contiguous", "natural", "flwr:IidPartitioner", "flwr:NaturalIdPartitioner", "import path"}


@pytest.fixture(params=SPECS)
def spec(request):
    found = SPECS[request.param]
    if found["name"].startswith("flwr:") and importlib.util.find_spec("flwr_datasets") is None:
        pytest.skip(f"flwr-datasets is not installed: {INSTALL}")
    return found


def cut(spec, seed=3, labels=LABELS):
    known = spec["name"] in ("natural", "flwr:NaturalIdPartitioner")
    return partition(labels, None if known else CLIENTS, spec, seed, holders=HOLDERS)


def test_the_suite_has_every_partition():
    assert {spec["name"] for spec in SPECS.values()} >= set(_KEYS)


def test_every_record_goes_to_one_client_and_every_client_has_one(spec):
    parts = cut(spec)
    assert len(parts) == CLIENTS
    assert all(len(part) and part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(RECORDS))


def test_the_seed_decides(spec, request):
    first, again, other = cut(spec), cut(spec), cut(spec, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    same = all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert same == (request.node.callspec.params["spec"] in FIXED)


def test_nothing_global_is_moved_or_changed(spec):
    labels = LABELS.copy()
    np.random.seed(1)  # noqa: NPY002 - whether anybody draws from it is what is tested
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    cut(spec, labels=labels)
    np.testing.assert_array_equal(labels, LABELS)
    assert np.random.random() == expected  # noqa: NPY002


def test_an_option_that_it_does_not_have_is_refused(spec):
    with pytest.raises(FedSafeError, match="colour"):
        cut({**spec, "colour": "blue"})
