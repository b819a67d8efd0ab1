"""Robust rules, mixing and attacks equal byzfl's, where both mean the same.

Krum here sums the distances to ``n - f - 2`` others, as published; byzfl sums ``n - f - 1``, so it is asked with one
adversary more. Its ALIE divides by ``h - 1`` in the deviation.
"""

import importlib.util
import math
import sys
import types

import numpy as np
import pytest

from fedsafe.aggregation import CentredClipping, Krum, MultiKrum, TrimmedMean, Updates
from fedsafe.aggregation.attacks import Alie, InnerProductManipulation
from fedsafe.aggregation.coordinate_wise import Median
from fedsafe.aggregation.geometric_median import geometric_median
from fedsafe.aggregation.mixing import NearestNeighbourMixing
from fedsafe.rng import Stream, StreamId

found = importlib.util.find_spec("byzfl")
if found is None or found.submodule_search_locations is None:
    pytest.skip("byzfl is not installed: make crosscheck", allow_module_level=True)
# Its own entry imports its benchmark, which needs torchvision: the modules that are compared do not.
package = types.ModuleType("byzfl")
package.__path__ = list(found.submodule_search_locations)
sys.modules.setdefault("byzfl", package)

from byzfl.aggregators import aggregators, preaggregators  # noqa: E402
from byzfl.attacks import attacks  # noqa: E402

SIZES = [(n, f) for n in (9, 10, 20, 21) for f in (1, 2, 3)]
STREAM = Stream(bytes(32), StreamId(purpose="client noise", client=-1, round=1, digest=b""))


def rows_of(n):
    return np.random.default_rng(n).normal(size=(n, 7))


def ours(rule, rows):
    updates = Updates(clients=np.arange(len(rows)), rows=rows, examples=np.ones(len(rows)))
    return rule.finish(rule.add(rule.zero(rows.shape[1]), updates), STREAM)


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_rules(n, f):
    rows = rows_of(n)
    pairs = [
        (Median(), aggregators.Median()),
        (TrimmedMean(adversaries=f), aggregators.TrMean(f=f)),
        (Krum(adversaries=f), aggregators.Krum(f=f + 1)),
        (MultiKrum(adversaries=f, selected=n - f - 1), aggregators.MultiKrum(f=f + 1)),
        (CentredClipping(clip=1.5, iterations=3), aggregators.CenteredClipping(tau=1.5, L=3)),
    ]
    for rule, peer in pairs:
        np.testing.assert_allclose(ours(rule, rows), peer(rows.copy()), rtol=0, atol=1e-9, err_msg=rule.name)
    converged = aggregators.GeometricMedian(nu=1e-9, T=3000)(rows)
    np.testing.assert_allclose(geometric_median(rows), converged, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_nearest_neighbour_mixing(n, f):
    mixed = NearestNeighbourMixing()(rows_of(n), f, None)
    np.testing.assert_allclose(mixed, preaggregators.NNM(f=f)(rows_of(n)), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_attacks(n, f):
    honest, own, rng = rows_of(n), np.zeros((f, 7)), np.random.default_rng(0)
    np.testing.assert_allclose(
        InnerProductManipulation(scale=2.0)(honest, f, own, rng)[0],
        attacks.InnerProductManipulation(tau=2.0)(honest),
        rtol=0,
        atol=1e-12,
    )
    tau = -1.2 * math.sqrt((n - 1) / n)
    np.testing.assert_allclose(
        Alie(deviations=1.2)(honest, f, own, rng)[0],
        attacks.ALittleIsEnough(tau=tau)(honest),
        rtol=0,
        atol=1e-12,
    )
