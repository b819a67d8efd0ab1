"""Federated averaging with Gaussian noise added by a trusted server."""
