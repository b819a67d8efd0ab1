"""A federation of two clients in a folder, whose records follow a small public schema."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from small_federation import EXPERIMENT, KEPT, NAMES, SCHEMA, records_of

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """``make(folder, port=..., **wanted)`` writes a federation with its records in place."""
    from fedsafe.deploy.federation import Client
    from fedsafe.deploy.folder import Wanted, write_federation

    given = tmp_path_factory.mktemp("given")
    (given / "schema.toml").write_text(tomli_w.dumps(SCHEMA))
    (given / "experiment.toml").write_text(tomli_w.dumps(EXPERIMENT))

    def write(folder: Path, **wanted: Any) -> Any:
        values = {
            "name": "trial",
            "clients": tuple(Client(name=name) for name in NAMES),
            "config": given / "experiment.toml",
            "schema": given / "schema.toml",
            "records": dict.fromkeys(NAMES, KEPT),
        }
        federation = write_federation(folder, Wanted(**{**values, **wanted}))
        for name in federation.names:
            records = federation.client_folder(name) / "records" / "patients.csv"
            records.write_text(records_of(name))
        return federation

    return write
