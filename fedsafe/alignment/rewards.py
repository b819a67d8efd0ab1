"""Each person's own reward: what stays local is found again from the person's records, for judging a simulation."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsafe.client import (
    ClientJob,
    LocalParameters,
    LocalTraining,
    Objective,
    build_objective,
    build_trainer,
    layout_of,
)
from fedsafe.data import Examples, Kind
from fedsafe.params import Vector
from fedsafe.rng import Stream, StreamId, key_from_seed

# Steps on all records of a person at once, by the gradient of their mean loss. The pull towards the start keeps the
# values of a person with few records, or with records that all say the same, near the ones that everybody begins with.
_STEPS, _LEARNING_RATE, _PULL = 60, 1.0, 0.02


def reconstruct(
    model: nn.Module,
    kind: Kind,
    examples: Examples,
    rows: Sequence[NDArray[np.int64]],
    *,
    local: Sequence[str],
    objective: Objective | None = None,
    trainer: str = "stacked",
    steps: int = _STEPS,
    learning_rate: float = _LEARNING_RATE,
    pull: float = _PULL,
) -> NDArray[np.float32]:
    """Every client's own model: the shared part as it is, the local part found from the client's records.

    As in federated reconstruction (Singhal et al., 2021), but for steps on all of a client's records, without clip and
    noise: a client may do that at home with any model that was released, and nothing of it is released. In a simulation
    what is found, and every figure of it, is a function of private records.

    Args:
        model: The global model, at whose local parameters everybody starts.
        kind: Of the task.
        examples: The records of all clients.
        rows: Which of them each client has; a client without any keeps the start.
        local: Names of the parameters, or of modules, that stay with a client; none changes nothing.
        objective: What clients lower; by default the one of the kind.
        trainer: Name of the trainer, see `fedsafe.client.build_trainer`.
        steps: Steps on all records of a client.
        learning_rate: Of each.
        pull: Towards the start, mu of FedProx.

    Returns:
        ``(clients, parameters)``, each in the order of ``layout_of(model)``.

    Raises:
        ModelError: A name is none of the model's, or nothing is left to share.
    """
    whole = layout_of(model)
    start = _vector(model)
    found = np.repeat(start[None], len(rows), 0)
    held = [client for client, own in enumerate(rows) if len(own)]
    if not local or not held:
        return found
    kept = LocalParameters(whole, tuple(local))
    frozen = copy.deepcopy(model).train()
    for name, parameter in frozen.named_parameters():
        parameter.requires_grad_(bool(parameter.requires_grad and kept.has(name)))
    training = LocalTraining(
        learning_rate=learning_rate, steps=steps, rate=1.0, clip=np.inf, noise=0.0, proximal=pull
    )
    # Batches of rate 1 are everything, and there is no noise: the key decides nothing.
    key = key_from_seed(0)
    jobs = [
        ClientJob(
            client=client,
            records=np.asarray(rows[client], np.int64),
            batches=Stream(key, StreamId(purpose="reconstruct", client=client, round=0, digest=b"")),
            noise=Stream(key, StreamId(purpose="reconstruct noise", client=client, round=0, digest=b"")),
        )
        for client in held
    ]
    x, y = torch.from_numpy(examples.x), torch.from_numpy(examples.y)
    lowered = build_objective(None, kind) if objective is None else objective
    made = build_trainer(trainer, frozen, lowered, x, y, training)
    found[np.array(held)[:, None], np.flatnonzero(kept.mask)] = made.train(_vector(frozen), jobs)
    return found


def personal_outputs(
    model: nn.Module, parameters: NDArray[np.float32], x: NDArray[np.float32], owners: NDArray[np.int64]
) -> NDArray[np.float64]:
    """``(n, outputs)`` of records, each under the model of the client that owns it.

    Args:
        model: Of any weights; it is left as it is.
        parameters: ``(clients, parameters)`` from :func:`reconstruct`.
        x: ``(n, ...)`` inputs.
        owners: ``(n,)`` client numbers.
    """
    own = copy.deepcopy(model).eval()
    trained = [p for p in own.parameters() if p.requires_grad]
    with torch.no_grad():
        width = own(torch.from_numpy(x[:1])).shape[1] if len(x) else 1
    found = np.empty((len(x), width))
    with torch.no_grad():
        for client in np.unique(owners):
            nn.utils.vector_to_parameters(torch.from_numpy(parameters[client].copy()), trained)
            at = np.flatnonzero(owners == client)
            found[at] = own(torch.from_numpy(x[at])).double().numpy()
    return found


def personal_rewards(
    model: nn.Module, parameters: NDArray[np.float32], features: NDArray[np.float32]
) -> NDArray[np.float64]:
    """``(clients, items)`` rewards of items under each client's own model.

    Args:
        model: With a method ``reward``, as `fedsafe.models.reward.PairReward` has; it is left as it is.
        parameters: ``(clients, parameters)`` from :func:`reconstruct`.
        features: ``(items, features)``.
    """
    own = copy.deepcopy(model).eval()
    trained = [p for p in own.parameters() if p.requires_grad]
    rewards = np.empty((len(parameters), len(features)))
    with torch.no_grad():
        for client, vector in enumerate(parameters):
            nn.utils.vector_to_parameters(torch.from_numpy(vector.copy()), trained)
            rewards[client] = own.reward(torch.from_numpy(features)).double().numpy()  # type: ignore[operator]
    return rewards


def _vector(model: nn.Module) -> Vector:
    trained = {name: p.detach().cpu().numpy() for name, p in model.named_parameters() if p.requires_grad}
    return layout_of(model).join(trained)
