"""A model to set beside the one that is judged: the same one from another run, or any that somebody made."""

import copy
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import nn

from fedsafe.assess.base import Subject
from fedsafe.errors import ConfigError, RecordError
from fedsafe.extensions import call
from fedsafe.store import RunFolder


def check_reference(reference: str) -> None:
    """Refuses a reference that is neither there nor an import path.

    Raises:
        ConfigError: Naming it.
    """
    if not os.path.exists(reference) and not _is_import_path(reference):
        raise ConfigError(
            f"the reference {reference!r} is not there: give a run folder, a .safetensors file, or the import path "
            "'package.module:function' of what makes a model"
        )


def with_reference(subject: Subject, reference: str) -> Subject:
    """The subject with the reference as its model.

    Args:
        subject: What is judged.
        reference: A run folder, of which the newest checkpoint is taken; a ``.safetensors`` file of such a checkpoint
            or of a state dict; or ``"package.module:function"``, called without arguments, which gives an `nn.Module`
            with the outputs of the task.

    Raises:
        ConfigError: It cannot be read, or is of another model.
    """
    check_reference(reference)
    if not os.path.exists(reference):
        made = call(reference, "reference")
        if not isinstance(made, nn.Module):
            raise ConfigError(
                f"the reference {reference!r} gave a {type(made).__name__}, not a torch.nn.Module"
            )
        return replace(subject, model=copy.deepcopy(made).eval())
    tensors = _read(Path(reference))
    if "parameters" in tensors and tensors["parameters"].ndim == 1:
        own = sum(p.numel() for p in subject.model.parameters() if p.requires_grad)
        if tensors["parameters"].size != own:
            raise ConfigError(
                f"the reference {reference!r} has {tensors['parameters'].size} parameters and the model {own}: it is "
                "of another model"
            )
        return subject.with_parameters(tensors["parameters"])
    model = copy.deepcopy(subject.model)
    try:
        model.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the reference {reference!r} is of another model: {reason}") from error
    return replace(subject, model=model.eval())


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.is_dir():
            folder = RunFolder.open(path)
            rounds = folder.checkpoints()
            if not rounds:
                raise ConfigError(
                    f"the reference {str(path)!r} has no checkpoint yet: let that run end first"
                )
            return folder.read_checkpoint(rounds[-1])[0]
        return load_file(path)
    except RecordError as error:
        raise ConfigError(f"the reference cannot be read: {error}") from error
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"the reference {str(path)!r} is no safetensors file: {error}") from error


def _is_import_path(name: str) -> bool:
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))
