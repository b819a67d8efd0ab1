"""Where clients compute."""

from typing import Literal

import torch

from fedsafe.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]


def gpus_here() -> int:
    """How many GPUs this process sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def require_device(device: Device, gpus: float | None = None) -> Literal["cpu", "cuda"]:
    """The device that clients in this process compute on.

    Args:
        device: ``"auto"`` takes a GPU where there is one.
        gpus: GPUs that there are; those of this process by default.

    Raises:
        ConfigError: CUDA is asked for where no GPU is.
    """
    found = gpus_here() if gpus is None else gpus
    if device == "cuda" and not found:
        raise ConfigError("engine.device = 'cuda', but there is no GPU here: set it to 'cpu' or 'auto'")
    return "cuda" if found and device != "cpu" else "cpu"
