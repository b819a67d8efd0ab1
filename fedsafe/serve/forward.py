"""A released model as the monitor asks it: outputs and the features before the last linear layer, in one pass.

A single record through torch costs more in calls than in arithmetic. A chain of linear layers and activations is
therefore computed by numpy, to the same values within rounding; every other model runs in torch.
"""

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.errors import ModelError

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

# Values of a pass in torch: larger batches are cut, so that memory is bounded.
_VALUES = 1 << 20


class Forward:
    """Outputs and features of a model.

    Args:
        model: In evaluation mode.
        shape: Of one input, ``(*inputs,)``.

    Raises:
        ModelError: The model is in training mode.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        if model.training:
            raise ModelError("the model is in training mode: call model.eval() before it is guarded")
        self.model, self.shape = model, shape
        self._chain = _chain(model, shape)
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        self._last = linear[-1] if linear else None
        self._rows = max(1, min(4096, _VALUES // max(1, prod(shape))))

    @property
    def in_numpy(self) -> bool:
        """Whether the model is computed by numpy."""
        return self._chain is not None

    def __call__(self, x: NDArray[np.generic]) -> tuple[Array, Floats]:
        """One pass.

        Args:
            x: ``(n, *inputs)`` encoded inputs.

        Returns:
            ``(n, outputs)`` outputs, and ``(n, features)`` what the last linear layer reads; the inputs themselves
            where the model has no such layer or it does not see one row for each input.

        Raises:
            ModelError: The model does not give one row of outputs for each input.
        """
        if self._chain is not None:
            return self._in_numpy(np.asarray(x, np.float32))
        parts = [
            self._in_torch(x[start : start + self._rows]) for start in range(0, max(1, len(x)), self._rows)
        ]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _in_numpy(self, x: Floats) -> tuple[Array, Floats]:
        values = features = x.reshape(len(x), -1)
        for step in self._chain or ():
            if isinstance(step, tuple):
                features = values
                values = values @ step[0] + step[1]
            else:
                values = step(values)
        return values.astype(np.float64), features

    def _in_torch(self, x: NDArray[np.generic]) -> tuple[Array, Floats]:
        seen: list[Tensor] = []
        hook = (
            None
            if self._last is None
            else self._last.register_forward_pre_hook(lambda _module, given: seen.append(given[0].detach()))
        )
        try:
            parameter = next(self.model.parameters(), None)
            device = None if parameter is None else parameter.device
            with torch.inference_mode():
                outputs = self.model(torch.tensor(x, device=device))
        finally:
            if hook is not None:
                hook.remove()
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(x):
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ModelError(f"the model returned {found} for {len(x)} inputs; it must give one row for each")
        flat = np.asarray(x, np.float32).reshape(len(x), -1)
        fits = len(seen) == 1 and seen[0].ndim == 2 and len(seen[0]) == len(x)
        features = seen[0].float().cpu().numpy() if fits else flat
        return outputs.double().cpu().numpy(), np.asarray(features, np.float32)


def _chain(
    model: nn.Module, shape: tuple[int, ...]
) -> list[tuple[Floats, Floats] | Callable[[Floats], Floats]] | None:
    """The steps of a plain chain; None where there is anything else in the model."""
    layers = [model] if isinstance(model, nn.Linear) else list(model) if type(model) is nn.Sequential else []
    steps: list[tuple[Floats, Floats] | Callable[[Floats], Floats]] = []
    for number, layer in enumerate(layers):
        if layer._forward_hooks or layer._forward_pre_hooks:
            return None  # code of the user's, which must run
        if type(layer) is nn.Linear and layer.weight.dtype == torch.float32:
            weight = layer.weight.detach().cpu().numpy()
            bias = (
                np.zeros(len(weight), np.float32) if layer.bias is None else layer.bias.detach().cpu().numpy()
            )
            steps.append((np.ascontiguousarray(weight.T), bias.copy()))
        elif type(layer) is nn.ReLU:
            steps.append(_relu)
        elif type(layer) is nn.Tanh:
            steps.append(np.tanh)
        elif type(layer) is nn.Flatten and number == 0 and (layer.start_dim, layer.end_dim) == (1, -1):
            continue
        elif type(layer) is not nn.Identity:
            return None
    first = next((step for step in steps if isinstance(step, tuple)), None)
    flat = len(shape) == 1 or (bool(layers) and type(layers[0]) is nn.Flatten)
    return steps if first is not None and flat and len(first[0]) == prod(shape) else None


def _relu(values: Floats) -> Floats:
    return np.maximum(values, np.float32(0.0))
