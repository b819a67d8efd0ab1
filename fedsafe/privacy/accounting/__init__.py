"""Accounting: what a planned, or an adaptive, sequence of releases costs."""

from fedsafe.privacy.accounting.pld import (
    COARSE,
    CURVE_POINTS,
    FINE,
    LEAST_NOISE,
    Adjacency,
    SampledGaussian,
    accountant_name,
    calibrate_noise,
    epsilon,
    group_epsilon,
    spending_curve,
)
