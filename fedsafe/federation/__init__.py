"""Everything that speaks Flower: messages, strategy, client app and server app."""

from fedsafe.federation.client_app import ClientRuntime, Measure, make_client_app
from fedsafe.federation.measuring import ModuleMeasure
from fedsafe.federation.outcome import RoundOutcome
from fedsafe.federation.scores import score_deviation
from fedsafe.federation.secure_clients import SecureClients, SimulatedKeys
from fedsafe.federation.secure_rounds import SecureRounds
from fedsafe.federation.server_app import make_server_app, server_context
from fedsafe.federation.server_noise import server_noise
from fedsafe.federation.strategy import NoisyAverage

__all__ = [
    "ClientRuntime",
    "Measure",
    "ModuleMeasure",
    "NoisyAverage",
    "RoundOutcome",
    "SecureClients",
    "SecureRounds",
    "SimulatedKeys",
    "make_client_app",
    "make_server_app",
    "score_deviation",
    "server_context",
    "server_noise",
]
