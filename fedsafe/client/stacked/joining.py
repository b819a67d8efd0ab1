"""Which contributions are measured together: those of layers that share a parameter, or train only some of theirs."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedsafe.client.stacked.layers import Call, Contribution, Tapped
from fedsafe.client.stacked.layers.contributions import Instantiated

# Sums of a contribution, and the places in a client's parameters where they belong.
Placed = Callable[[Sequence[Tensor]], Iterator[tuple[slice, Tensor]]]


@dataclass(frozen=True)
class Part:
    """A part of the gradient.

    Args:
        contribution: What each example adds to it.
        placed: Where its sums belong.
    """

    contribution: Contribution
    placed: Placed


def parts_of(calls: Mapping[Tapped, Sequence[Call]], batch: int, *, norms: bool = True) -> Iterator[Part]:
    """The parts whose squared norms add up to that of an example's whole gradient.

    A tied weight's gradient is the sum over its layers, so that its norm is that of the sum; and the norm of a layer
    that is frozen in part counts what is trained alone. Both are written out per example.

    Args:
        calls: Of each layer.
        batch: Examples for each client.
        norms: Whether norms are wanted; sums alone can be added up layer by layer.
    """
    users = Counter(place.start for layer in calls for place in layer.slots.columns.values())
    shared: list[tuple[Tapped, Contribution]] = []
    for layer, own in calls.items():
        contribution = layer.contribution(own, batch, norms=norms)
        tied = any(users[place.start] > 1 for place in layer.slots.columns.values())
        if norms and (tied or layer.slots.frozen):
            shared.append((layer, contribution))
        else:
            yield Part(contribution, _places_of(layer))
    if shared:
        yield _joined(shared, batch)


def _places_of(layer: Tapped) -> Placed:
    def placed(summed: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
        for name, values in layer.named(summed):
            if name in layer.slots.columns:
                yield layer.slots.columns[name], values

    return placed


def _joined(shared: Sequence[tuple[Tapped, Contribution]], batch: int) -> Part:
    places: dict[int, slice] = {}
    rows: dict[int, Tensor] = {}
    for layer, contribution in shared:
        flat = [values.flatten(0, 1) for values in contribution.written_out()]
        for place, values in _places_of(layer)(flat):
            own = values.reshape(-1, batch, place.stop - place.start)
            rows[place.start] = rows[place.start] + own if place.start in rows else own
            places[place.start] = place
    together = tuple(places.values())

    def placed(summed: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]]:
        return zip(together, summed, strict=True)

    return Part(Instantiated(*[rows[place.start] for place in together]), placed)
