"""Writes what one client gets, and nothing of another's: its first policy, its data source, its commands."""

import os
import secrets
import shutil
from pathlib import Path
from typing import Any, Final

import tomli_w

from fedsafe.apps.code import code_digest
from fedsafe.deploy.federation import SECRET, ClientFolder, Federation, address
from fedsafe.deploy.pages import write_client_commands
from fedsafe.deploy.policy import Policy, make_policy
from fedsafe.models.zoo import ZOO
from fedsafe.runs.config import Config

RUNTIME_PORT: Final = 9094
METRICS_PORT: Final = 9464
_BETWEEN = 10


def write_client(federation: Federation, name: str, policy: Policy) -> Path:
    """The folder of one client, without its keys.

    Args:
        federation: Whose it is.
        name: Of the client.
        policy: A first one; it is the client's to change.
    """
    folder = federation.client_folder(name)
    after = _BETWEEN * len(list(folder.parent.glob("*/client.toml")))
    (folder / "state").mkdir(parents=True)
    (folder / "records").mkdir()
    (folder / "state").chmod(0o700)
    ClientFolder(
        folder=folder,
        client=name,
        federation=federation.name,
        server=address(federation.host, federation.port),
        # Other ports for each client, so that several can be tried on one machine.
        runtime_port=RUNTIME_PORT + after,
        metrics_port=METRICS_PORT + after,
    ).write()
    write_secret(folder / SECRET)
    for file in ("ca/ca.pem", "schema.toml", "experiment.toml"):
        shutil.copy(federation.folder / file, folder)
    (folder / "policy.toml").write_text(policy.to_toml(), encoding="utf-8")
    source: dict[str, Any] = {"format": "fedsafe.data-source/1", "client": name, "schema": "schema.toml"}
    source |= {"path": "records/patients.csv", "validation": 0.2, "seed": 0}
    (folder / "data.toml").write_text(tomli_w.dumps(source), encoding="utf-8")
    write_client_commands(federation, name)
    return folder


def first_policy(config: Config, client: str, bundle: str) -> Policy:
    """A policy that allows one run of an experiment in a year, and nothing else.

    Args:
        config: The experiment.
        client: Whose policy it is.
        bundle: SHA-256 of what the server hands to Flower.
    """
    level, evaluation = config.privacy.record, config.federation.evaluation
    noised = evaluation is not None and evaluation.noised
    model = config.model if isinstance(config.model, str) else str(config.model.get("name"))
    values = {
        "client": client,
        "budget": {"record": {"epsilon": level.epsilon, "delta": level.delta}},
        "metrics": {"allowed": ["noised_score"] if noised else []},
        "secure": {"required": config.aggregation.secure},
        "code": {"apps": [bundle], "fedsafe": [code_digest()]},
    }
    return make_policy(
        values | ({"model": {"names": [model]}} if model in ZOO else {}), f"policy of {client}"
    )


def write_secret(path: Path) -> None:
    """What a SuperNode and its gate know each other by: 32 random bytes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))
