"""Accounting: what a planned, or an adaptive, sequence of releases costs.

``account`` and ``epsilon`` are for the planned regime, ``RdpFilter`` for the adaptive one. Each file has one way of
counting; ``curves`` says which is used when.
"""

from fedsafe.privacy.accounting.accounted import Accounted, account, account_by_rdp, epsilon
from fedsafe.privacy.accounting.client_bounds import ClientSpend, WorstClient, worst_client
from fedsafe.privacy.accounting.curves import COARSE, FINE, accountant_name
from fedsafe.privacy.accounting.filter_noise import noise_that_costs, order_for, require_whole
from fedsafe.privacy.accounting.groups import group_epsilon
from fedsafe.privacy.accounting.noise import (
    LEAST_NOISE,
    MOST_NOISE,
    analytic_noise,
    calibrate_noise,
    least_noise,
)
from fedsafe.privacy.accounting.releases import Adjacency, FixedSizeGaussian, Release, SampledGaussian
from fedsafe.privacy.accounting.renyi import legacy_rdp_epsilon, rdp_epsilon
from fedsafe.privacy.accounting.renyi_filter import RdpFilter
from fedsafe.privacy.accounting.spending import CURVE_POINTS, spending_curve
from fedsafe.privacy.accounting.tuning import Runs, Search, search_cost, searches_cost

__all__ = [
    "COARSE",
    "CURVE_POINTS",
    "FINE",
    "LEAST_NOISE",
    "MOST_NOISE",
    "Accounted",
    "Adjacency",
    "ClientSpend",
    "FixedSizeGaussian",
    "RdpFilter",
    "Release",
    "Runs",
    "SampledGaussian",
    "Search",
    "WorstClient",
    "account",
    "account_by_rdp",
    "accountant_name",
    "analytic_noise",
    "calibrate_noise",
    "epsilon",
    "group_epsilon",
    "least_noise",
    "legacy_rdp_epsilon",
    "noise_that_costs",
    "order_for",
    "rdp_epsilon",
    "require_whole",
    "search_cost",
    "searches_cost",
    "spending_curve",
    "worst_client",
]
