"""Federated training across some hospitals, all of them in every round."""
