"""Cuts a task into a federation: who trains on what, who is held out, and what the model is judged on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedsafe.data.client_rows import ClientRows
from fedsafe.data.dataset import Examples, Indices, Task
from fedsafe.data.natural import by_holder, holder_column
from fedsafe.data.options import one_of, share
from fedsafe.data.partition import partition
from fedsafe.errors import ConfigError, DataError
from fedsafe.rng import public_generator

EVALUATIONS = ("test", "validation", "held_out_clients", "client_validation")


@dataclass(frozen=True, kw_only=True)
class Federated:
    """A task that is spread over clients.

    Args:
        task: The task; its training records lack those of held-out clients, and its evaluation records are replaced
            where another evaluation was asked for.
        records: Rows of ``task.train`` that each client trains on; never empty.
        validation: Rows of ``task.train`` that each client keeps for its own validation; empty arrays if none.
        shards: Rows of ``task.evaluation``, cut by the rule that cut the training records. One array for each
            client, in the clients' order, wherever the rule can give that; a natural partition of which the evaluation
            records have other holders gives one for each of those, and the evaluation ``"held_out_clients"`` one for
            each held-out client. None where it cannot be cut.
        unseen: Records of held-out clients, who take no part in training; None if there are none.
        names: What the holders of a natural partition are called, in the clients' order; None for another partition.
    """

    task: Task
    records: ClientRows
    validation: ClientRows
    shards: ClientRows | None
    unseen: Examples | None
    names: tuple[str, ...] | None

    @property
    def clients(self) -> int:
        """How many clients train."""
        return len(self.records)


def federate(
    task: Task,
    *,
    clients: int | None,
    partition: Mapping[str, Any],
    held_out: float = 0.0,
    client_validation: float = 0.0,
    evaluation: str = "test",
    validation_fraction: float = 0.2,
    seed: int,
) -> Federated:
    """Cut a task into a federation.

    Args:
        task: The task.
        clients: Number of clients that the records are cut into, held-out ones included; None for a natural
            partition, which knows it.
        partition: See :func:`fedsafe.data.partition`.
        held_out: Fraction of the clients, in [0, 1), that take no part; if it is positive, at least one. Their records
            leave the training set.
        client_validation: Fraction of each client's records, in [0, 1), that it keeps for its own validation; if it is
            positive, at least one, and at least one remains for training.
        evaluation: ``"test"``: the task's own evaluation records. ``"validation"``: ``validation_fraction`` of all
            training records, taken before the clients are cut. ``"held_out_clients"``: the records of held-out
            clients. ``"client_validation"``: what clients keep for their own validation. All but the first are
            private, as the training records are.
        validation_fraction: For ``"validation"``, in (0, 1).
        seed: Decides everything that is random.

    Raises:
        ConfigError: If an option is unknown, outside its range, or contradicts another.
        DataError: If there are fewer records than clients, no client can keep a record for its own validation, or a
            custom partition fails.
    """
    one_of(evaluation, EVALUATIONS, "data.evaluation")
    held_out = share(held_out, "federation.held_out")
    client_validation = share(client_validation, "federation.client_validation")
    for name, fraction in (("held_out_clients", held_out), ("client_validation", client_validation)):
        if evaluation == name and not fraction:
            key = name.removesuffix("_clients")
            raise ConfigError(f"data.evaluation = {name!r} needs federation.{key} above 0, for example 0.1.")
    if evaluation == "validation":
        task = task.with_validation(validation_fraction, seed)
    parts = _cut(task.train, clients, partition, seed)
    names = _names(task.train, partition)
    away = _held_out(len(parts), held_out, seed)
    here = np.delete(np.arange(len(parts)), away)
    shards = _evaluation_shards(task.evaluation, len(parts), partition, seed, names, here)
    unseen = None
    if len(away):
        absent = parts.take(away)
        unseen = task.train.take(absent.together)
        if evaluation == "held_out_clients":
            shards = ClientRows.in_order(absent.sizes)
            said = f"records of {len(away)} of {len(parts)} clients, who take no part in training (private)"
            task = _judged_on(task, unseen, said)
        task, parts = _without(task, parts.take(here))
        names = None if names is None else tuple(names[client] for client in here)
    records, validation = parts, ClientRows.none(len(parts))
    if client_validation:
        labels = [str(client) for client in here] if names is None else names
        split = [
            _own_validation(rows, client_validation, seed, label)
            for rows, label in zip(parts, labels, strict=True)
        ]
        validation, records = (ClientRows.of(side) for side in zip(*split, strict=True))
        if not validation.sizes.any():
            raise DataError(
                f"No client has two records, so none can keep one for its own validation: use fewer clients, or set "
                f"federation.client_validation = {client_validation} to 0."
            )
    if evaluation == "client_validation":
        shards = ClientRows.in_order(validation.sizes)
        said = f"{client_validation:.0%} of each client's records, kept by it with seed {seed} (private)"
        judged = task.train.take(validation.together)
        task = _judged_on(task, judged, said)
    return Federated(
        task=task, records=records, validation=validation, shards=shards, unseen=unseen, names=names
    )


def _cut(examples: Examples, clients: int | None, spec: Mapping[str, Any], seed: int) -> ClientRows:
    return ClientRows.of(partition(examples.y, clients, spec, seed, holders=examples.holders))


def _names(examples: Examples, spec: Mapping[str, Any]) -> tuple[str, ...] | None:
    if spec.get("name") != "natural":
        return None
    return by_holder(examples.holders[holder_column(spec, examples.holders)])[0]


def _held_out(clients: int, fraction: float, seed: int) -> Indices:
    """Sorted numbers of the clients that take no part."""
    count = max(1, round(fraction * clients)) if fraction else 0
    if count >= clients:
        raise ConfigError(f"federation.held_out = {fraction} of {clients} clients leaves none to train.")
    return np.sort(public_generator(seed, "held-out clients").permutation(clients)[:count])


def _evaluation_shards(
    evaluation: Examples,
    clients: int,
    spec: Mapping[str, Any],
    seed: int,
    names: tuple[str, ...] | None,
    here: Indices,
) -> ClientRows | None:
    """Shards of the clients that train, or None."""
    if names is None:
        if len(evaluation) < clients:
            return None
        try:
            return _cut(evaluation, clients, spec, seed).take(here)
        except (ConfigError, DataError):
            return None
    by = holder_column(spec, evaluation.holders) if evaluation.holders else None
    if by is None:
        return None
    owners, rows = by_holder(evaluation.holders[by])
    own = dict(zip(owners, rows, strict=True))
    present = [names[client] for client in here]
    return ClientRows.of([own[name] for name in present] if own.keys() >= set(present) else rows)


def _judged_on(task: Task, examples: Examples, said: str) -> Task:
    """The task, judged on private records of its clients instead."""
    return replace(task, evaluation=examples, evaluation_name=said, evaluation_public=False, preferences=None)


def _without(task: Task, parts: ClientRows) -> tuple[Task, ClientRows]:
    """The task with the training records of these clients alone, and their rows in it."""
    rows = parts.together
    kept = np.sort(rows)
    here = ClientRows.cut(np.searchsorted(kept, rows), parts.sizes)
    return replace(task, train=task.train.take(kept)), here


def _own_validation(rows: Indices, fraction: float, seed: int, label: str) -> tuple[Indices, Indices]:
    """Sorted rows that a client keeps for validation, and those that it trains on."""
    count = min(max(1, round(fraction * len(rows))), len(rows) - 1) if fraction else 0
    order = public_generator(seed, f"client validation {label}").permutation(rows)
    return np.sort(order[:count]), np.sort(order[count:])
