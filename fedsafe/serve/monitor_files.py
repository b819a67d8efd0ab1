"""A monitor in a folder: arrays in ``monitor.safetensors``, everything else in ``monitor.json``; nothing is pickled."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedsafe.data import InputSchema, Task
from fedsafe.errors import RecordError
from fedsafe.serve.conformal import Calibration, Surprise
from fedsafe.serve.detectors import rebuild
from fedsafe.serve.forward import Forward
from fedsafe.serve.monitor import Monitor
from fedsafe.store.checkpoints import read_checkpoint, write_checkpoint
from fedsafe.store.files import replace_file

FORMAT: Final = "fedsafe.monitor/1"
ARRAYS: Final = "monitor.safetensors"
FACTS: Final = "monitor.json"


def model_digest(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and buffers with their names, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_monitor(monitor: Monitor, folder: Path | str) -> None:
    """Write a monitor; the folder is made.

    Raises:
        RecordError: The folder cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {"centre": monitor.centre}
    described: dict[str, list[dict[str, Any]]] = {}
    for kind, detectors in monitor.detectors.items():
        described[kind] = []
        for number, (detector, scale) in enumerate(zip(detectors, monitor.scales[kind], strict=True)):
            own, values = detector.state()
            prefix = f"{kind}.{number}."
            arrays |= {f"{prefix}{name}": array for name, array in own.items()}
            arrays |= {f"{prefix}scale.at": scale.at, f"{prefix}scale.surprise": scale.surprise}
            described[kind].append(
                {
                    "kind": type(detector).__name__,
                    "values": dict(values),
                    "arrays": sorted(own),
                    "scale": scale.scale,
                }
            )
    arrays |= {f"calibration.{name}": each.scores for name, each in monitor.calibrations.items()}
    facts = {
        "format": FORMAT,
        "model_sha256": model_digest(monitor.forward.model),
        "classes": monitor.classes,
        "level": monitor.level,
        "temperature": monitor.temperature,
        "detectors": described,
        "areas": {name: dict(areas) for name, areas in monitor.areas.items()},
        "facts": dict(monitor.facts),
    }
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_checkpoint(path / ARRAYS, arrays, {"format": FORMAT})
        replace_file(path / FACTS, (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise RecordError(f"the monitor cannot be written to {path}: {error.strerror}") from error


def load_monitor(folder: Path | str, model: nn.Module, task: Task | InputSchema) -> Monitor:
    """Read a monitor of this model.

    Raises:
        RecordError: There is none, it is damaged, or it was fitted to another model.
    """
    path = Path(folder)
    arrays, _ = read_checkpoint(path / ARRAYS)
    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise RecordError(
                f"{path / FACTS} has the format {facts['format']!r}, not {FORMAT!r}: fit it again"
            )
        if facts["model_sha256"] != model_digest(model):
            raise RecordError(f"the monitor in {path} was fitted to another model: fit it again")
        schema = task.schema if isinstance(task, Task) else task
        detectors, scales = {}, {}
        for kind, group in facts["detectors"].items():
            made, scaled = [], []
            for number, each in enumerate(group):
                prefix = f"{kind}.{number}."
                own = {name: arrays[prefix + name] for name in each["arrays"]}
                made.append(rebuild(each["kind"], own, each["values"]))
                scaled.append(
                    Surprise(
                        at=arrays[f"{prefix}scale.at"],
                        surprise=arrays[f"{prefix}scale.surprise"],
                        scale=float(each["scale"]),
                    )
                )
            detectors[kind], scales[kind] = tuple(made), tuple(scaled)
        return Monitor(
            forward=Forward(model, tuple(schema.shape)),
            classes=bool(facts["classes"]),
            level=float(facts["level"]),
            detectors=detectors,
            scales=scales,
            calibrations={
                name.removeprefix("calibration."): Calibration(scores=array)
                for name, array in arrays.items()
                if name.startswith("calibration.")
            },
            temperature=float(facts["temperature"]),
            centre=arrays["centre"],
            areas=facts["areas"],
            facts=facts["facts"],
        )
    except FileNotFoundError as error:
        raise RecordError(f"{path} has no {FACTS}: fit the monitor again") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"the monitor in {path} cannot be read ({error}): fit it again") from error
