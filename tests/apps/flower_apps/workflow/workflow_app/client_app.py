"""A NumPyClient that can mask what it sends."""

import numpy as np
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable


class Client(NumPyClient):
    """Moves the model by its number."""

    def __init__(self, partition: int) -> None:
        self.partition = partition

    def fit(self, parameters: list, config: dict) -> tuple:
        moved = [array + 0.25 * self.partition for array in parameters]
        return moved, self.partition + 1, {"partition": self.partition}

    def evaluate(self, parameters: list, config: dict) -> tuple:
        mean = float(np.mean(parameters[0]))
        return mean * mean, 10, {"mean": mean}


def client_fn(context: Context):
    return Client(context.node_config["partition-id"]).to_client()


def masked(message, context: Context, app: ClientAppCallable):
    return (secaggplus_mod if context.run_config["secure"] else unmasked)(message, context, app)


def unmasked(message, context: Context, app: ClientAppCallable):
    return app(message, context)


app = ClientApp(client_fn=client_fn, mods=[masked])
