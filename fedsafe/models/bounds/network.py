"""A model as a list of steps that have bounds, read from its own forward pass."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from fedsafe.errors import ModelError
from fedsafe.extensions import one_line
from fedsafe.models.bounds.layers import MODULES, RESHAPES, Unsupported, function
from fedsafe.models.bounds.operations import Operation, Reshape

_SHAPES_ONLY = frozenset({"size", "dim", "ndimension", getattr, len, operator.getitem})
# Two float32 evaluations of one network differ by less, relative to its largest output.
_AGREE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation and where its inputs come from.

    Attributes:
        name: Of the layer or function, for messages.
        inputs: Value numbers: 0 is the network's input, i the output of step i - 1.
        operation: What it does.
    """

    name: str
    inputs: tuple[int, ...]
    operation: Operation


@dataclass(frozen=True, kw_only=True)
class Network:
    """Steps in order; the last is the output.

    Attributes:
        steps: At least one.
        shapes: Of one example, for the input and each step's output.
    """

    steps: tuple[Step, ...]
    shapes: tuple[tuple[int, ...], ...]

    def values(self, x: Tensor) -> list[Tensor]:
        """The input and every step's output ``(n, *shape)``."""
        values = [x]
        for step in self.steps:
            values.append(step.operation.forward(*(values[i] for i in step.inputs)))
        return values

    @property
    def multiplications(self) -> int:
        """Of one forward pass of one example, roughly."""
        total = 0
        for step, shape in zip(self.steps, self.shapes[1:], strict=True):
            places = torch.Size(shape).numel()
            weight = getattr(step.operation, "weight", None)
            # Each output of a linear layer or convolution sums over as many inputs as a row of the weight has.
            total += places * (1 if weight is None else int(weight[0].numel()))
        return total

    def to(self, dtype: torch.dtype) -> Self:
        """A copy with constants of this type; gradients pass through to the model's parameters."""
        steps = (Step(name=s.name, inputs=s.inputs, operation=s.operation.to(dtype)) for s in self.steps)
        return type(self)(steps=tuple(steps), shapes=self.shapes)


def trace(model: nn.Module, shape: tuple[int, ...]) -> Network:
    """The steps of a model in evaluation mode, with its own parameters, so that gradients reach them.

    Linear layers, convolutions, pooling, batch normalisation by fixed statistics, ReLU, tanh, sigmoid, reshaping,
    constants added or multiplied and sums of branches have bounds. Modules of the user's own are looked into.

    Args:
        model: From ``(n, *shape)`` to ``(n, outputs)``.
        shape: Of one example.

    Raises:
        ModelError: A step has no bounds, or the code cannot be followed; the message names it.
    """
    if type(model) in MODULES:
        model = nn.Sequential(model)
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # the model is the user's code, which may raise anything
        raise ModelError(f"the model's code cannot be followed step by step: {one_line(error)}") from error
    modules = dict(model.named_modules())
    parameter = next(model.parameters(), None)
    # Three records of either sign; some layers change what they are given.
    probe = torch.sin(torch.arange(3.0 * torch.Size(shape).numel())).reshape(3, *shape)
    probe = probe if parameter is None else probe.to(parameter)
    reader = _Reader(model, modules, probe[:2].clone(), shape)
    for node in graph.nodes:
        try:
            reader.read(node)
        except Unsupported as error:
            raise ModelError(f"{_title(node, modules)} has no bounds: {error}") from error
        except ModelError:
            raise
        except Exception as error:  # as above
            raise ModelError(f"{_title(node, modules)} cannot be run alone: {one_line(error)}") from error
    network = Network(steps=tuple(reader.steps), shapes=tuple(reader.shapes)).to(probe.dtype)
    if not reader.steps:
        raise ModelError("the model returns its input")
    with torch.no_grad():
        ours, theirs = network.values(probe)[reader.output], model(probe.clone())
    largest = max(1.0, float(theirs.abs().nan_to_num().max()))
    if ours.shape != theirs.shape or not torch.allclose(
        ours, theirs, rtol=_AGREE, atol=_AGREE * largest, equal_nan=True
    ):
        raise ModelError("the model does not give what its steps give one by one")
    return network


def _title(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    if node.op == "call_module":
        return f"the layer {node.target} ({type(modules[str(node.target)]).__name__})"
    target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
    return f"the step {node.name} ({target})"


class _Reader:
    """Runs a graph node by node on two records, and notes what each does to values that depend on the input."""

    def __init__(
        self, model: nn.Module, modules: Mapping[str, nn.Module], probe: Tensor, shape: tuple[int, ...]
    ) -> None:
        self.model, self.modules, self.probe = model, modules, probe
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = [shape]
        self.output = 0
        self._values: dict[fx.Node, Any] = {}
        self._number: dict[fx.Node, int] = {}  # of those that depend on the input

    def read(self, node: fx.Node) -> None:
        """One node."""
        if node.op == "placeholder":
            if self._values and not node.args:
                raise Unsupported("the model takes more than one input")
            self._values[node] = node.args[0] if self._values else self.probe
            if len(self._values) == 1:
                self._number[node] = 0
        elif node.op == "output":
            (result,) = node.args
            if not isinstance(result, fx.Node) or result not in self._number:
                raise Unsupported("the output is not one tensor that depends on the input")
            self.output = self._number[result]
            if self.output != len(self.steps):
                # Steps after the output change nothing.
                del self.steps[self.output :], self.shapes[self.output + 1 :]
        elif node.op == "get_attr":
            self._values[node] = operator.attrgetter(str(node.target))(self.model)
        else:
            self._call(node)

    def _call(self, node: fx.Node) -> None:
        arguments = fx.node.map_arg(node.args, lambda n: self._values[n])
        options = fx.node.map_arg(node.kwargs, lambda n: self._values[n])
        live = [argument for argument in node.all_input_nodes if argument in self._number]
        if node.op == "call_module":
            result = self.modules[str(node.target)](*arguments, **options)
        elif node.op == "call_method":
            result = getattr(arguments[0], str(node.target))(*arguments[1:], **options)
        else:
            result = node.target(*arguments, **options)  # type: ignore[operator]
        self._values[node] = result
        if not live:
            return
        if not isinstance(result, Tensor):
            if node.target not in _SHAPES_ONLY or not _sizes(result):
                raise Unsupported("it makes something else than a tensor of the input")
            return
        inputs = tuple(a for a in node.args if isinstance(a, fx.Node) and a in self._number)
        if len(result) != len(self.probe) or not inputs:
            raise Unsupported("it does not keep one row for each record")
        operation = self._operation(node, result, tuple(arguments), options)
        self.steps.append(
            Step(name=node.name, inputs=tuple(self._number[a] for a in inputs), operation=operation)
        )
        self.shapes.append(tuple(result.shape[1:]))
        self._number[node] = len(self.steps)

    def _operation(
        self, node: fx.Node, result: Tensor, arguments: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Operation:
        before, after = tuple(arguments[0].shape[1:]) if isinstance(arguments[0], Tensor) else (), tuple(
            result.shape[1:]
        )  # fmt: skip
        if node.op == "call_module":
            layer = self.modules[str(node.target)]
            if isinstance(layer, nn.Flatten | nn.Unflatten):
                return Reshape(before=before, after=after)
            make = MODULES.get(type(layer))
            if make is None or len(arguments) != 1:
                raise Unsupported("its kind is not among those that have")
            return make(layer, before)
        if node.target in RESHAPES:
            return Reshape(before=before, after=after)
        if node.target in _POOLS:
            layer = _POOLS[node.target](*arguments[1:], **options)
            return MODULES[type(layer)](layer, before)
        if set(options) - {"inplace"}:
            raise Unsupported(f"its options {', '.join(options)}")
        live = tuple(isinstance(a, fx.Node) and a in self._number for a in node.args)
        # In-place activations of a function form carry a flag that changes nothing.
        if len(arguments) == 2 and isinstance(arguments[1], bool):
            arguments, live = arguments[:1], live[:1]
        return function(node.target, arguments, live)


_POOLS: Mapping[Any, type[nn.Module]] = {
    torch.nn.functional.max_pool2d: nn.MaxPool2d,
    torch.max_pool2d: nn.MaxPool2d,
    torch.nn.functional.avg_pool2d: nn.AvgPool2d,
    torch.nn.functional.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
}


def _sizes(result: Any) -> bool:
    return isinstance(result, int | torch.Size) or (
        isinstance(result, tuple) and all(isinstance(entry, int) for entry in result)
    )
