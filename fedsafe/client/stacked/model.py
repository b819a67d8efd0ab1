"""Stacking: an ordinary module, run for many clients at once with each client's own parameters."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsafe.client.batches import Batch, chosen, examples, mapped
from fedsafe.client.objectives import Objective, input_gradients, tried_on
from fedsafe.client.stacked.alignment import aligned_rows
from fedsafe.client.stacked.exposed import ExposedParameter, losses_example_by_example
from fedsafe.client.stacked.layers import Call, Tap, Tapped, Taps, UnreadableParameter
from fedsafe.client.stacked.swapping import swap
from fedsafe.params import Layout

Calls = dict[Tapped, list[Call]]


def layout_of(module: nn.Module) -> Layout:
    """Names and shapes of the parameters that are trained, in the module's order; a tied one has its first name."""
    named = [(name, tuple(p.shape)) for name, p in module.named_parameters() if p.requires_grad]
    return Layout(names=tuple(name for name, _ in named), shapes=tuple(shape for _, shape in named))


class StackedModel:
    """A module whose parametric layers hold one set of weights per client.

    Every other operation, and the module's own ``forward``, runs unchanged on ``(clients * batch, ...)``. Where that
    code reads parameters itself, it runs as if for one example at a time (``exposed.py``).

    Args:
        module: The template; it is copied. Its frozen parameters are shared by all clients.
        parameters: ``(clients, parameters)``, in the order of :func:`layout_of`. The model reads this very
            tensor: training writes to it in place.
        channels_last: Whether layers may give images with channels innermost in memory.
        exposed: Names of parameters of layers with a rule that the model's code reads too.
        precision: Of the forward and backward pass. With another one than the parameters' the model reads a copy,
            made at each pass; norms, sums and steps stay in the parameters' precision.
    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Tensor,
        *,
        channels_last: bool = True,
        exposed: Sequence[str] = (),
        precision: torch.dtype | None = None,
    ) -> None:
        self.parameters = parameters
        self._read = parameters
        if precision not in (None, parameters.dtype):
            rows, columns = parameters.shape
            self._read = aligned_rows(rows, columns, precision, parameters.device)
        self.taps = Taps()
        other = None if self._read is parameters else precision
        template = _moved(copy.deepcopy(module), parameters.device, other)
        self.module, self._exposed = swap(template, self._read, self.taps, channels_last, exposed)
        self.module.train()

    @property
    def clients(self) -> int:
        """How many clients are stacked."""
        return self.parameters.shape[0]

    def losses(self, objective: Objective, batch: Batch) -> Tensor:
        """``(clients * batch,)`` losses of a batch of as many examples, client-major, without gradients."""
        with torch.no_grad():
            return self._losses(objective, batch)[0]

    def input_gradients(self, objective: Objective, batch: Batch) -> list[Tensor]:
        """Gradients of each example's loss by its own floating inputs, for attacks; nothing is clipped.

        Returns:
            One for each floating tensor of the batch, in the order of the tree, with its shape.
        """
        with self._without_taps():
            return input_gradients(lambda own: self._losses(objective, own)[0], batch)

    def outputs(self, inputs: Tensor) -> Tensor:
        """``(clients * batch, ...)`` outputs in the precision of the parameters, without gradients."""
        with torch.no_grad(), self._without_taps():
            return self._rows(lambda model, own: model(own), inputs)[0].to(self.parameters.dtype)

    def differentiate(
        self, objective: Objective, batch: Batch, mask: Tensor | None = None
    ) -> tuple[Tensor, Calls]:
        """One forward pass, and one backward pass to what the layers left behind.

        Args:
            objective: Gives one loss per example.
            batch: Of ``clients * batch`` examples, client-major.
            mask: ``(clients, batch)``, False where an example's gradient shall be zero; None for none.

        Returns:
            Losses ``(clients * batch,)``, and the calls of each layer that they depend on, both in the precision of
            the parameters.
        """
        self.taps.clear()
        with torch.enable_grad():
            losses, exposed = self._losses(objective, batch)
            counted = losses if mask is None else torch.where(mask.flatten(), losses, 0.0)
            handles = [tap.handle for tap in self.taps] + [copies for _, copies in exposed]
            gradients = torch.autograd.grad(counted.sum(), handles, allow_unused=True)
        dtype = self.parameters.dtype
        calls = calls_by_layer(self.taps, gradients[: len(self.taps)], dtype)
        for (parameter, copies), gradient in zip(exposed, gradients[len(self.taps) :], strict=True):
            if gradient is not None:
                calls[parameter] = [Call(copies.detach(), gradient.to(dtype))]
        self.taps.clear()
        return losses.detach().to(dtype), calls

    def _losses(
        self, objective: Objective, batch: Batch
    ) -> tuple[Tensor, list[tuple[ExposedParameter, Tensor]]]:
        count = examples(batch)
        losses, copies = self._rows(objective, batch)
        if losses.shape != (count,):
            raise ValueError(f"the objective gave losses of shape {tuple(losses.shape)}, not {(count,)}")
        return losses, copies

    def _rows(
        self, objective: Objective, batch: Batch
    ) -> tuple[Tensor, list[tuple[ExposedParameter, Tensor]]]:
        """What an objective gives, with one row per example, and the copies of exposed parameters that it read."""
        if self._read is not self.parameters:
            self._read.copy_(self.parameters)
            batch = mapped(
                lambda part: part.to(self._read.dtype) if part.is_floating_point() else part, batch
            )
        if not self._exposed:
            return objective(self.module, batch), []
        copies = [parameter.copies(examples(batch) // self.clients) for parameter in self._exposed]
        losses = losses_example_by_example(self.module, objective, batch, self._exposed, copies)
        return losses, list(zip(self._exposed, copies, strict=True))

    @contextmanager
    def _without_taps(self) -> Iterator[None]:
        self.taps.open = False
        try:
            yield
        finally:
            self.taps.open = True


def _moved(module: nn.Module, device: torch.device, precision: torch.dtype | None) -> nn.Module:
    """The module with its tensors on a device and in a precision, if one is given; what is tied stays tied."""

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(device, precision if tensor.is_floating_point() else None)

    own = list(module.parameters())
    made = {id(p): nn.Parameter(moved(p.detach()), requires_grad=p.requires_grad) for p in own}
    for layer in module.modules():
        for name, parameter in layer._parameters.items():
            layer._parameters[name] = None if parameter is None else made[id(parameter)]
        for name, buffer in layer._buffers.items():
            layer._buffers[name] = None if buffer is None else moved(buffer)
    return module


@dataclass(frozen=True, kw_only=True)
class StackShape:
    """What the stacking of a model depends on, found out once by a trial on zeros.

    Args:
        channels_last: Whether the model's own code takes images with channels innermost in memory.
        values: How many values its layers keep for one example.
        dtype: Of its parameters.
        exposed: Names of parameters of layers with a rule that the model's code reads too.
    """

    channels_last: bool
    values: int
    dtype: torch.dtype
    exposed: tuple[str, ...] = ()

    def stack(
        self, module: nn.Module, parameters: Tensor, *, precision: torch.dtype | None = None
    ) -> StackedModel:
        """The module, stacked this way over parameters ``(clients, parameters)``."""
        return StackedModel(
            module,
            parameters,
            channels_last=self.channels_last,
            exposed=self.exposed,
            precision=precision,
        )


def measure(module: nn.Module, objective: Objective, batch: Batch) -> StackShape:
    """Try a stack of two clients on zeros of the shape of these records.

    Raises:
        Exception: Whatever the model's own code raises.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    parameters = aligned_rows(2, layout_of(module).total, trained[0].dtype, trained[0].device)
    parameters[:] = torch.cat([p.detach().flatten() for p in trained])
    # What a perturbing objective makes of records has more parts, and more passes.
    records = tried_on(objective, chosen(batch, slice(2)))
    zeros = mapped(lambda part: part.new_zeros(2, *part.shape[1:]), records)
    exposed: tuple[str, ...] = ()
    channels_last = True
    while True:
        try:
            model = StackedModel(module, parameters, channels_last=channels_last, exposed=exposed)
            with torch.enable_grad():
                _, copies = model._losses(objective, zeros)
            if not model.taps.read:
                break
            exposed += tuple(sorted(model.taps.read))
        except UnreadableParameter as error:
            exposed += (error.parameter,)
        except RuntimeError:
            # A `view` of channels-last memory, for one; anything else comes again.
            if not channels_last:
                raise
            channels_last = False
    kept = sum(part.numel() for tap in model.taps for part in (tap.inputs, tap.handle))
    kept += sum(part.numel() for _, part in copies)
    return StackShape(
        channels_last=channels_last, values=max(1, kept // 2), dtype=parameters.dtype, exposed=exposed
    )


def calls_by_layer(taps: Sequence[Tap], gradients: Sequence[Tensor | None], dtype: torch.dtype) -> Calls:
    """The calls of each layer that the loss depends on.

    Args:
        taps: In the order of the forward pass.
        gradients: Of the loss by each tap's handle; None where the loss does not depend on it.
        dtype: Of what follows, whatever the precision of the passes.
    """
    calls: Calls = {}
    for tap, gradient in zip(taps, gradients, strict=True):
        if gradient is not None:
            inputs = tap.inputs.to(dtype) if tap.inputs.is_floating_point() else tap.inputs
            calls.setdefault(tap.layer, []).append(Call(inputs, gradient.to(dtype)))
    return calls
