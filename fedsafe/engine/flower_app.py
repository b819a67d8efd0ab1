"""Finds the two apps of an unmodified Flower project, and the configuration of its run, as Flower itself does."""

import difflib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from flwr.clientapp import ClientApp
from flwr.common.config import flatten_dict, fuse_dicts, get_project_config, parse_config_args
from flwr.serverapp import ServerApp
from flwr.supercore.object_ref import load_app

from fedsafe.engine.grid import ClientApps
from fedsafe.errors import ConfigError
from fedsafe.extensions import one_line

_FORM = "give a folder with a Flower pyproject.toml, or 'module:server_app,module:client_app'"


@dataclass(frozen=True, kw_only=True)
class FlowerApp:
    """A Flower project.

    Args:
        server: Import path of its ServerApp.
        client: Import path of its ClientApp.
        folder: Where its modules are.
        run_config: What both apps find in ``context.run_config``.
    """

    server: str
    client: str
    folder: Path
    run_config: dict[str, Any]

    def load_server(self) -> ServerApp:
        """The server's side.

        Raises:
            ConfigError: It cannot be imported, or is no ServerApp.
        """
        return _loaded(self.server, self.folder, ServerApp)  # type: ignore[no-any-return]

    def make_client(self) -> Callable[[], ClientApps]:
        """A factory of the client's side, for a worker.

        Raises:
            ConfigError: It cannot be imported, or is no ClientApp.
        """
        _loaded(self.client, self.folder, ClientApp)
        return functools.partial(_client_apps, self.client, self.folder)


def find_app(name: str, overrides: Sequence[str] = ()) -> FlowerApp:
    """The project that a name stands for.

    Args:
        name: A folder with a Flower ``pyproject.toml``, or two import paths with a comma between.
        overrides: Of the run's configuration, ``key=value`` with values as in TOML. A project knows its keys; two
            import paths take any.

    Raises:
        ConfigError: There is no such project, or it cannot be configured so.
    """
    if "," in name and not Path(name).exists():
        server, _, client = name.partition(",")
        if ":" not in server or ":" not in client:
            raise ConfigError(f"the app {name!r} cannot be read: {_FORM}")
        config = _overrides(overrides)
        return FlowerApp(server=server.strip(), client=client.strip(), folder=Path.cwd(), run_config=config)
    folder = Path(name)
    if not (folder / "pyproject.toml").is_file():
        raise ConfigError(f"there is no app {name!r}: {_FORM}")
    try:
        project = get_project_config(folder)["tool"]["flwr"]["app"]
        defaults = flatten_dict(project.get("config", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / 'pyproject.toml'} is no Flower app: {one_line(error)}") from error
    given = _overrides(overrides)
    for key in given:
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"--set {key}: the app has no such option: {hint}its options are {', '.join(defaults) or 'none'}"
            )
    components = project["components"]
    return FlowerApp(
        server=components["serverapp"],
        client=components["clientapp"],
        folder=folder.resolve(),
        run_config=fuse_dicts(defaults, given),
    )


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, _ = pair.partition("=")
        try:
            read = parse_config_args([pair]) if equals and key.strip() else {}
        except (ValueError, click.ClickException):
            read = {}
        if not read:
            raise ConfigError(
                f"--set {pair}: give key=value with a TOML value, such as lr=0.1, local=true or 'name=\"adam\"'"
            )
        found |= read
    return found


def _client_apps(reference: str, folder: Path) -> ClientApps:
    return ClientApps(one=_loaded(reference, folder, ClientApp))


def _loaded(reference: str, folder: Path, kind: type) -> Any:
    try:
        found = load_app(reference, ImportError, folder)
    except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
        raise ConfigError(
            f"the {kind.__name__} {reference!r} cannot be imported: {one_line(error)}"
        ) from error
    if not isinstance(found, kind):
        raise ConfigError(f"{reference!r} is {type(found).__name__}, not a {kind.__name__}")
    return found
