"""A NumPyClient."""

import numpy as np
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp


class Client(NumPyClient):
    """Moves the model by its number."""

    def __init__(self, partition: int) -> None:
        self.partition = partition

    def fit(self, parameters: list, config: dict) -> tuple:
        return [array + self.partition + 1.0 for array in parameters], self.partition + 1, {}

    def evaluate(self, parameters: list, config: dict) -> tuple:
        mean = float(np.mean(parameters[0]))
        return mean * mean, 10, {"mean": mean}


def client_fn(context: Context):
    return Client(context.node_config["partition-id"]).to_client()


app = ClientApp(client_fn=client_fn)
