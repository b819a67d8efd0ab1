"""Everything that speaks Flower: messages, strategy, client app and server app."""

from fedsafe.federation.client_app import ClientRuntime, make_client_app
from fedsafe.federation.server_app import make_server_app, server_context
from fedsafe.federation.strategy import NoisyAverage, RoundOutcome, ServerOptimizer

__all__ = [
    "ClientRuntime",
    "NoisyAverage",
    "RoundOutcome",
    "ServerOptimizer",
    "make_client_app",
    "make_server_app",
    "server_context",
]
