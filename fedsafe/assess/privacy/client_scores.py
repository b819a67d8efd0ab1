"""Scores of whole clients: what a server reads in uploads, and everyone in the models that were broadcast."""

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.clients import ClientRecords, Federation
from fedsafe.assess.privacy.uploads import gradient
from fedsafe.data import Examples

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def known_records(
    records: ClientRecords, clients: Indices, most: int, rng: np.random.Generator
) -> list[Examples]:
    """At most so many records of each client: what the adversary has of it.

    Args:
        records: By client.
        clients: Which clients.
        most: Records of one client.
        rng: Draws them.
    """
    rows = [records.rows[int(client)] for client in clients]
    return [
        records.examples.take(np.sort(rng.choice(own, size=min(most, len(own)), replace=False)))
        for own in rows
    ]


def mean_losses(subject: Subject, known: list[Examples]) -> Array:
    """``(clients,)`` mean losses, in one pass over the records of all."""
    sizes = np.array([len(examples) for examples in known])
    together = Examples(
        x=np.concatenate([examples.x for examples in known]),
        y=np.concatenate([examples.y for examples in known]),
    )
    losses = subject.per_record(together)[0]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return np.asarray(np.add.reduceat(losses, starts) / sizes)


def fall_of_losses(models: list[Subject], known: list[Examples]) -> tuple[Array, Array]:
    """``(clients,)`` scores: the fall of a client's mean loss from the first model to the last, and over all models.

    The second is the mean, over models, of how far the loss lies below that of the first: early learning counts too.

    Args:
        models: Oldest first, at least two.
        known: Records of each client.
    """
    losses = np.stack([mean_losses(model, known) for model in models])
    return losses[0] - losses[-1], (losses[0] - losses[1:]).mean(axis=0)


def gradients(subject: Subject, federation: Federation, known: list[Examples]) -> Array:
    """``(clients, parameters)``: what an update of each client would look like, from the records that are known."""
    return np.stack([gradient(subject, federation, examples) for examples in known])


def cosines(first: Array, second: Array) -> Array:
    """``(n,)`` cosines of rows; 0 where one is zero or not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        products = (first * second).sum(axis=1)
        usable = np.isfinite(products) & np.isfinite(lengths) & (lengths > 0)
        return np.where(usable, products / np.where(usable, lengths, 1.0), 0.0)


def centred(rows: Array) -> Array:
    """Rows less their mean: what is peculiar to each client. Rows that are not finite are zero."""
    clean = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    return np.asarray(clean - clean.mean(axis=0))
