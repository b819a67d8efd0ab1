"""Flower's FedAvg with client-level privacy: the same cohort size every round, uniform weights, noise on the sum."""

from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg


class PrivateFedAvg(FedAvg):
    """Clip each client's update, add noise to their sum, average.

    Args:
        clip: bound on the norm of one client's update, all layers together.
        noise_multiplier: standard deviation of the noise on the sum, over ``clip``.
        cohort: clients asked per round; the sum is divided by it, or by the replies if it is None.
        **settings: what FedAvg takes.
    """

    def __init__(
        self, *, clip: float, noise_multiplier: float, cohort: int | None = None, **settings
    ) -> None:
        super().__init__(**settings)
        self.clip = clip
        self.noise_multiplier = noise_multiplier
        self.cohort = cohort
        self.noise = torch.Generator()
        self.noise.seed()  # from the operating system
        self.broadcast: dict[str, torch.Tensor] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the model that is sent, since clients return a trained one."""
        self.broadcast = {name: tensor.double() for name, tensor in arrays.to_torch_state_dict().items()}
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the updates of the clients that answered."""
        results, _ = self._check_and_log_replies(replies, is_train=True)
        updates = [self._clipped_update(result) for result in results]
        std = self.noise_multiplier * self.clip
        divisor = self.cohort or max(len(updates), 1)
        averaged = {}
        for name, before in self.broadcast.items():
            total = torch.zeros_like(before)
            for update in updates:
                total += update[name]
            total += std * torch.randn(before.shape, generator=self.noise, dtype=torch.float64)
            averaged[name] = (before + total / divisor).float()
        return ArrayRecord(averaged), None

    def _clipped_update(self, result: Message) -> dict[str, torch.Tensor]:
        trained = result.content[self.arrayrecord_key].to_torch_state_dict()
        update = {name: trained[name].double() - before for name, before in self.broadcast.items()}
        norm = torch.linalg.vector_norm(torch.cat([change.flatten() for change in update.values()]))
        if not norm.isfinite():
            return {name: torch.zeros_like(change) for name, change in update.items()}
        factor = 1.0 if norm <= self.clip else self.clip / norm
        return {name: change * factor for name, change in update.items()}


def faulty() -> PrivateFedAvg:
    return PrivateFedAvg(clip=0.5, noise_multiplier=2.0, fraction_train=0.25, fraction_evaluate=0.0)


def corrected() -> PrivateFedAvg:
    return PrivateFedAvg(
        clip=0.5, noise_multiplier=2.0, fraction_train=0.25, fraction_evaluate=0.0, cohort=20
    )
