"""Parameters that stay with their client, as a personal head does (FedPer, Arivazhagan et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ModelError
from fedsafe.params import Layout, Vector


@dataclass(frozen=True)
class LocalParameters:
    """Which parameters of a model are each client's own: they are trained there, and never leave.

    Guarantees:
        What :meth:`released` gives is zero at every local parameter, whatever was trained. The local gradient is part
        of what is clipped and noised, so a record-level claim holds for both parts together.

    Args:
        layout: Of the whole model.
        names: Names of parameters, or of modules that have them.

    Raises:
        ModelError: A name is none of the model's, or nothing is left to share.
    """

    layout: Layout
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.names:
            if not any(self._covers(name, own) for own in self.layout.names):
                raise ModelError(f"no parameter is called {name!r}: there are {', '.join(self.layout.names)}")
        if self.mask.all():
            raise ModelError("every parameter would stay local, and clients would share nothing: name fewer")

    @property
    def mask(self) -> NDArray[np.bool_]:
        """``(parameters,)``, True where a parameter is local."""
        local = [any(self._covers(name, own) for name in self.names) for own in self.layout.names]
        return np.repeat(local, self.layout.sizes)

    def start(self, broadcast: Vector, own: Vector | None) -> Vector:
        """``(parameters,)`` where a client starts: what is shared from the server, the rest its own.

        Args:
            broadcast: ``(parameters,)`` from the server; also what a client without own values begins with.
            own: ``(local parameters,)`` from :meth:`kept`, or None in a client's first round.
        """
        start = broadcast.copy()
        if own is not None:
            start[self.mask] = own
        return start

    def released(self, starts: NDArray[np.float32], trained: NDArray[np.float32]) -> NDArray[np.float64]:
        """``(clients, parameters)`` updates, zero where a parameter is local.

        Args:
            starts: ``(clients, parameters)`` where each client started.
            trained: ``(clients, parameters)`` where it ended.
        """
        updates = trained.astype(np.float64) - starts.astype(np.float64)
        updates[:, self.mask] = 0.0
        return updates

    def kept(self, trained: NDArray[np.float32]) -> Sequence[Vector]:
        """``(local parameters,)`` of each client, for its next round."""
        return list(trained[:, self.mask].copy())

    @staticmethod
    def _covers(name: str, parameter: str) -> bool:
        return parameter == name or parameter.startswith(f"{name}.")
