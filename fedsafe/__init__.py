"""FedSafe: private, assessed federated learning."""
