"""Aggregation: how updates become one update of the global model.

A named strategy of the literature is a rule, a server optimiser and a client's setting. Anything that is not
mentioned keeps its default; rules marked * have no proven sensitivity, and need ``privacy.client.epsilon = inf``;
those marked ** steer the model by exact losses too, and need ``privacy.record.epsilon = inf`` as well.

==================  ====================================================================  ==============================
strategy            server                                                                client
==================  ====================================================================  ==============================
FedAvg              ``aggregator = "fedavg"`` *, ``optimizer = { name = "sgd", lr = 1.0,  ``rate = 1.0``, full batches
                    momentum = 0.0 }``
DP-FedAvg           ``aggregator = "noisy_mean"`` with ``[privacy.client]``, momentum 0
weighted DP-FedAvg  ``aggregator = { name = "capped_mean", cap = 100 }``, momentum 0
adaptive clipping   ``aggregator = "adaptive_clip"``, ``privacy.client.clip`` for the first round
chosen noise        ``aggregator = { name = "chosen_noise", choose = "signal" }``, or the
                    import path of a function that chooses each round's noise from what was
                    released
local DP            ``aggregator = "local_gaussian"``
DP-FTRL             ``aggregator = { name = "banded_mean", bands = 8 }``, ``momentum = 0.9``
groups in the open  ``aggregator = { name = "grouped_mean", column = "sex", weights = "uniform" }``; weights
                    that follow losses need ``privacy.record.epsilon = inf``
distributed DP      ``aggregator = "distributed_mean"`` (secure aggregation is simulated)
grouped FedAvg      ``aggregator = { name = "grouped_fedavg", column = "sex",
                    weights = "adaptive" }`` ** where weights follow losses, else *, momentum 0
FedAvgM             as FedAvg or DP-FedAvg, ``momentum = 0.9``
FedProx             as FedAvg or DP-FedAvg                                                ``proximal = 0.01``
FedAdam             any rule, ``optimizer = { name = "adam", lr = 0.1, beta1 = 0.9,
                    beta2 = 0.99, tau = 1e-3 }``
FedYogi             any rule, ``optimizer = { name = "yogi", ... }``, keys as for adam
SCAFFOLD            ``aggregator = "scaffold"`` *, momentum 0
Median              ``aggregator = "median"`` *, momentum 0
Trimmed mean        ``aggregator = { name = "trimmed_mean", share = 0.1 }`` *, momentum 0
Mean of rows        ``aggregator = "mean"`` *, momentum 0
Geometric median    ``aggregator = "geometric_median"`` *, momentum 0
Krum                ``aggregator = { name = "krum", share = 0.3 }`` *, momentum 0
Multi-Krum          ``aggregator = { name = "multi_krum", share = 0.3 }`` *, momentum 0
Centred clipping    ``aggregator = "centred_clipping"`` *, momentum 0
Norm bound          ``aggregator = "norm_bound"`` *, momentum 0
q-FedAvg            ``aggregator = { name = "q_fedavg", q = 1.0 }`` **, momentum 0
Agnostic FL (AFL)   ``aggregator = { name = "agnostic", ascent = 0.001 }`` **, momentum 0 ``steps = 1``, as published
==================  ====================================================================  ==============================

From the median to the norm bound, a rule takes ``before = "nearest_neighbour_mixing"`` or ``before = { name =
"bucketing", size = 2 }``; how many adversaries to allow for is ``share = 0.3`` or ``adversaries = 30``.

To add an aggregator, write a class with the members of :class:`Aggregator` and name it in ``RULES``. One of your own
needs no change here: inherit :class:`RowRule`, write ``combine``, and set ``server.aggregator`` to
``"package.module:Class"``, or ``{ name = "package.module:Class", ... }`` with options of its constructor.
"""

from fedsafe.aggregation.adaptive_clip import AdaptiveClip
from fedsafe.aggregation.agnostic import Agnostic
from fedsafe.aggregation.banded import BandedMean
from fedsafe.aggregation.base import Aggregator, Fold, Rule, State, Updates
from fedsafe.aggregation.capped_mean import CappedMean
from fedsafe.aggregation.centred_clipping import CentredClipping
from fedsafe.aggregation.checked import Checked, require_update
from fedsafe.aggregation.choosing import (
    RULES,
    AggregatorSpec,
    build_aggregator,
    check_aggregator,
    folds_rows,
    mechanics_of,
    needs_groups,
    released_by,
)
from fedsafe.aggregation.chosen_noise import ChosenNoise
from fedsafe.aggregation.coordinate_wise import Mean, Median, TrimmedMean
from fedsafe.aggregation.distributed import DistributedMean
from fedsafe.aggregation.fedavg import FedAvg
from fedsafe.aggregation.geometric_median import GeometricMedian
from fedsafe.aggregation.grouped_fedavg import GroupedFedAvg
from fedsafe.aggregation.grouped_mean import GroupedMean
from fedsafe.aggregation.grouped_membership import Membership
from fedsafe.aggregation.krum import Krum, MultiKrum
from fedsafe.aggregation.local_gaussian import LocalGaussian
from fedsafe.aggregation.noise_choices import CHOICES, SoFar
from fedsafe.aggregation.noisy_mean import NoisyMean
from fedsafe.aggregation.norm_bound import NormBound
from fedsafe.aggregation.q_fedavg import QFedAvg
from fedsafe.aggregation.robust import RobustRule
from fedsafe.aggregation.rows import RowRule
from fedsafe.aggregation.scaffold import Scaffold
from fedsafe.aggregation.server_optimizers import (
    SERVER_OPTIMIZERS,
    Adam,
    OptimizerState,
    ServerOptimizer,
    Sgd,
    Yogi,
)

__all__ = [
    "CHOICES",
    "RULES",
    "SERVER_OPTIMIZERS",
    "Adam",
    "AdaptiveClip",
    "Aggregator",
    "AggregatorSpec",
    "Agnostic",
    "BandedMean",
    "CappedMean",
    "CentredClipping",
    "Checked",
    "ChosenNoise",
    "DistributedMean",
    "FedAvg",
    "Fold",
    "GeometricMedian",
    "GroupedFedAvg",
    "GroupedMean",
    "Krum",
    "LocalGaussian",
    "Mean",
    "Median",
    "Membership",
    "MultiKrum",
    "NoisyMean",
    "NormBound",
    "OptimizerState",
    "QFedAvg",
    "RobustRule",
    "RowRule",
    "Rule",
    "Scaffold",
    "ServerOptimizer",
    "Sgd",
    "SoFar",
    "State",
    "TrimmedMean",
    "Updates",
    "Yogi",
    "build_aggregator",
    "check_aggregator",
    "folds_rows",
    "mechanics_of",
    "needs_groups",
    "released_by",
    "require_update",
]
