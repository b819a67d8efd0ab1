"""What all parties of a secure sum agree on before it starts."""

import hashlib
from dataclasses import dataclass
from typing import Self

from fedsafe.aggregation.secure.graph import Graph, graph_for, planned_losses
from fedsafe.errors import ConfigError, SecureAggregationError
from fedsafe.privacy.mechanisms import DistributedMechanism

# Changes with anything that two versions could understand in two ways.
VERSION = 2
# Numbers of clients are points of a field of 2^31 - 1 elements, one of which is the secret's.
MOST_CLIENT = 2**31 - 3


@dataclass(frozen=True, kw_only=True)
class SecureParameters:
    """Of every round of a run.

    Args:
        values: That each client sends.
        modulus: Bits of the sum, from 2 to 62.
        minimum: The fewest clients whose sum may be unmasked.
        corrupt: The most clients of a round that work with the server.
        dropouts: The share of clients that may be lost between the first stage and the last.

    Raises:
        ConfigError: A number is out of range.
    """

    values: int
    modulus: int
    minimum: int
    corrupt: int = 0
    dropouts: float = 0.25

    def __post_init__(self) -> None:
        """Refuse numbers that no round could be played with."""
        if self.values < 1:
            raise ConfigError(f"values = {self.values!r} of secure aggregation: it is at least 1")
        if not 2 <= self.modulus <= 62:
            raise ConfigError(f"modulus = {self.modulus!r} of secure aggregation: it is from 2 to 62 bits")
        if not 0 <= self.corrupt < self.minimum:
            raise ConfigError(
                f"corrupt = {self.corrupt!r} of minimum = {self.minimum!r} clients leaves no honest one: raise minimum"
            )
        if self.minimum - self.corrupt < 2:
            raise ConfigError(
                f"minimum = {self.minimum!r} with corrupt = {self.corrupt!r} shows the update of a single honest "
                "client: raise minimum"
            )
        if not 0.0 <= self.dropouts < 1.0:
            raise ConfigError(f"dropouts = {self.dropouts!r} of secure aggregation: it is from 0 to below 1")

    @classmethod
    def of(cls, mechanism: DistributedMechanism, parameters: int, *, dropouts: float = 0.25) -> Self:
        """For the noise that clients add together: the same modulus, minimum and corrupt clients.

        Args:
            mechanism: What a client sends.
            parameters: Values of the model.
            dropouts: See above.
        """
        return cls(
            values=mechanism.length(parameters),
            modulus=mechanism.modulus,
            minimum=mechanism.minimum,
            corrupt=mechanism.corrupt,
            dropouts=dropouts,
        )

    def graph(self, clients: int) -> Graph:
        """For so many that advertised keys; see :func:`~fedsafe.aggregation.secure.graph.graph_for`."""
        return graph_for(clients, corrupt=self.corrupt, minimum=self.minimum, dropouts=self.dropouts)

    def require_room(self, clients: int) -> Graph:
        """The graph of a full cohort, once it is sure that the planned dropouts leave enough of it.

        Raises:
            ConfigError: They do not.
        """
        graph, lost = self.graph(clients), planned_losses(clients, self.dropouts)
        if clients - lost < graph.signatures:
            raise ConfigError(
                f"dropouts = {self.dropouts:g} of secure aggregation leaves {clients - lost} of {clients} clients, and "
                f"{graph.signatures} must stay: let more clients take part, or plan for fewer dropouts, corrupt "
                "clients or a smaller minimum"
            )
        return graph


@dataclass(frozen=True, kw_only=True)
class RoundId:
    """Which round of which run under which plan; every key, share and signature is good for one alone.

    Args:
        run: The run's name.
        round: From 1.
        plan: Digest of what else the parties agreed on, such as the plan's and the model's.

    Raises:
        SecureAggregationError: The round is no such number.
    """

    run: str
    round: int
    plan: bytes = b""

    def __post_init__(self) -> None:
        """Refuse what no message could say."""
        if not 0 <= self.round < 2**64:
            raise SecureAggregationError(
                f"round {self.round} of secure aggregation: rounds are numbered from 1, in eight bytes"
            )

    @property
    def run_digest(self) -> bytes:
        """32 bytes of the run's name."""
        return hashlib.sha256(b"fedsafe secure aggregation run\0" + self.run.encode()).digest()

    def context(self, parameters: SecureParameters) -> bytes:
        """32 bytes that stand for all of this; part of whatever is signed, encrypted or derived."""
        agreed = (
            f"{VERSION} {parameters.values} {parameters.modulus} {parameters.minimum} {parameters.corrupt} "
            f"{parameters.dropouts!r} {self.round}"
        ).encode()
        whole = hashlib.sha256(b"fedsafe secure aggregation round\0" + self.run_digest)
        whole.update(hashlib.sha256(agreed).digest())
        whole.update(hashlib.sha256(self.plan).digest())
        return whole.digest()
