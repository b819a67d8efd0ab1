"""Flower's FedAvg, made private: a fixed number of clients a round, clipped and noised."""
