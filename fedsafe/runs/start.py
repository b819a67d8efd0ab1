"""The first line of a run record: what was fixed before round 1."""

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from fedsafe.records import Start
from fedsafe.runs.adversaries import describe_adversaries
from fedsafe.runs.availability import describe_availability
from fedsafe.runs.compose import Parts
from fedsafe.runs.planning import Planned

_PACKAGES = ("fedsafe", "flwr", "ray", "torch", "numpy", "opacus", "dp-accounting", "captum")


def describe_start(name: str, parts: Parts, planned: Planned, assessment: Mapping[str, Any]) -> Start:
    """Describe a run before its first round.

    Args:
        name: Of the run.
        parts: Of the run.
        planned: Its plan and claims.
        assessment: How its models will be judged, see `fedsafe.runs.judge.Judge.planned`.
    """
    task, config = parts.task, parts.config
    sizes = parts.records.sizes
    there = describe_availability(config, parts.availability) if parts.availability is not None else None
    byzantine = describe_adversaries(config, len(sizes))
    return Start(
        run=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=code_revision(),
        versions=package_versions(),
        machine={
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "engine": config.engine.name,
            "workers": config.engine.workers if config.engine.name == "ray" else 1,
        },
        seed=config.seed,
        reproducible=config.privacy.noise_key == "seed",
        task={
            "name": task.name,
            "kind": task.kind,
            "classes": list(task.classes),
            "features": task.features,
            "train_records": len(task.train),
            "evaluation": task.evaluation_name,
            "evaluation_records": len(task.evaluation),
            "source": asdict(task.source),
        },
        model={
            "name": config.model if isinstance(config.model, str) else config.model.get("name", "module"),
            "parameters": parts.layout.total,
        },
        trainer=parts.trainer,
        federation={
            "clients": len(sizes),
            "partition": config.federation.partition,
            "records_per_client": {
                "min": int(sizes.min()),
                "median": float(np.median(sizes)),
                "max": int(sizes.max()),
            },
            **({"availability": there} if there else {}),
            **({"byzantine": byzantine} if byzantine else {}),
        },
        claims=tuple(planned.claims),
        matrix=tuple(planned.matrix),
        plan=planned.plan.numbers(),
        settings_sha256=config.digest,
        assessment=assessment,
    )


def package_versions() -> dict[str, str]:
    """Python and the packages that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def code_revision() -> str | None:
    """The commit that this package was run from, with ``+`` if the tree differs; None outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    return done.stdout.strip()
