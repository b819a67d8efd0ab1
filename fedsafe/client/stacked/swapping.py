"""Put stacked layers in the place of ordinary ones."""

from collections.abc import Sequence
from typing import NoReturn

from torch import Tensor, nn

from fedsafe.client.stacked.exposed import ExposedParameter, Inside
from fedsafe.client.stacked.layers import RULES, Slots, Taps
from fedsafe.errors import ModelError


def swap(
    module: nn.Module, parameters: Tensor, taps: Taps, channels_last: bool, exposed: Sequence[str]
) -> tuple[nn.Module, list[ExposedParameter]]:
    """A module with stacked layers where there are rules, and its other trained parameters exposed.

    Args:
        module: It is changed.
        parameters: ``(clients, parameters)``.
        taps: Where layers leave what they saw.
        channels_last: Whether outputs of images may keep their channels innermost in memory.
        exposed: Names of parameters of layers with a rule that the module's code reads too.
    """
    swapping = _Swapping(module, parameters, taps, channels_last, set(exposed))
    top = swapping.visit(module)
    for layer in top.modules():
        for name in _LISTS:
            layer.__dict__[name] = _refuse_list
    return top, swapping.exposed()


# What a module tells of its parameters: a stacked one would tell of fewer, and a penalty on them would be lost.
_LISTS = ("parameters", "named_parameters", "state_dict")


def _refuse_list(*_: object, **__: object) -> NoReturn:
    raise ModelError("the model's code lists its parameters, which a stack has for each client")


def ruled(layer: nn.Module) -> bool:
    """Whether a layer has parameters and a rule for them."""
    # A subclass may change `forward`, so only the exact type matches.
    rule = RULES.get(type(layer))
    return rule is not None and rule.unsupported(layer) is None and any(True for _ in layer.parameters())


class _Swapping:
    def __init__(
        self, module: nn.Module, parameters: Tensor, taps: Taps, channels_last: bool, exposed: set[str]
    ) -> None:
        self._slots = (parameters, taps, channels_last)
        self._names = {id(p): name for name, p in module.named_parameters()}
        self._shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
        self._columns: dict[str, slice] = {}
        start = 0
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                self._columns[name] = slice(start, start + parameter.numel())
                start += parameter.numel()
        self._wanted = exposed
        self._owners: dict[str, list[tuple[nn.Module, str]]] = {}
        # One stacked layer for each original, even if it is registered or called twice.
        self._replaced: dict[int, nn.Module] = {}
        self._inside = bool(exposed) or any(self._plain(layer) for layer in _above_rules(module))

    def visit(self, layer: nn.Module) -> nn.Module:
        """The module to put in a layer's place."""
        if id(layer) in self._replaced:
            return self._replaced[id(layer)]
        if ruled(layer):
            self._replaced[id(layer)] = self._stacked(layer)
            return self._replaced[id(layer)]
        self._replaced[id(layer)] = layer
        for name in self._plain(layer):
            parameter = layer._parameters.pop(name)
            self._owners.setdefault(self._names[id(parameter)], []).append((layer, name))
        for name, child in list(layer.named_children()):
            setattr(layer, name, self.visit(child))
        return layer

    def exposed(self) -> list[ExposedParameter]:
        """The trained parameters that code outside of stacked layers reads."""
        parameters, taps, channels_last = self._slots
        return [
            ExposedParameter(
                name,
                self._shapes[name],
                Slots(parameters, {name: self._columns[name]}, taps, channels_last),
                owners,
            )
            for name, owners in self._owners.items()
        ]

    def _stacked(self, layer: nn.Module) -> nn.Module:
        parameters, taps, channels_last = self._slots
        own = dict(layer.named_parameters(remove_duplicate=False))
        names = {name: self._names[id(p)] for name, p in own.items() if p.requires_grad}
        if len(set(names.values())) < len(names):
            raise ModelError(f"{type(layer).__name__} uses one parameter under two names")
        slots = Slots(
            parameters,
            {name: self._columns[full] for name, full in names.items()},
            taps,
            channels_last,
            {name: p.detach() for name, p in own.items() if not p.requires_grad},
            names,
        )
        stacked = RULES[type(layer)](layer, slots)
        placed = Inside(stacked) if self._inside else stacked
        for name, full in names.items():
            if full in self._wanted:
                self._owners.setdefault(full, []).append((placed, name))
        return placed

    def _plain(self, layer: nn.Module) -> list[str]:
        return [name for name, p in layer.named_parameters(recurse=False) if p.requires_grad]


def _above_rules(module: nn.Module) -> list[nn.Module]:
    """The modules whose own code runs: all but layers with a rule and what is inside of these."""
    if ruled(module):
        return []
    found = [module]
    for child in module.children():
        found += _above_rules(child)
    return found
