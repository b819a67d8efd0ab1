"""Flower's own wrappers for central differential privacy, as its documentation puts them around FedAvg."""

from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
)


def average():
    return FedAvg(fraction_train=0.5, fraction_evaluate=0.0, min_available_nodes=2)


def server_side_fixed():
    return DifferentialPrivacyServerSideFixedClipping(
        average(), noise_multiplier=1.0, clipping_norm=1.0, num_sampled_clients=20
    )


def client_side_fixed():
    return DifferentialPrivacyClientSideFixedClipping(
        average(), noise_multiplier=1.0, clipping_norm=1.0, num_sampled_clients=20
    )


def server_side_adaptive():
    return DifferentialPrivacyServerSideAdaptiveClipping(
        average(),
        noise_multiplier=1.0,
        num_sampled_clients=20,
        initial_clipping_norm=1.0,
        clipped_count_stddev=1.0,
    )


def client_side_adaptive():
    return DifferentialPrivacyClientSideAdaptiveClipping(
        average(),
        noise_multiplier=1.0,
        num_sampled_clients=20,
        initial_clipping_norm=1.0,
        clipped_count_stddev=1.0,
    )
