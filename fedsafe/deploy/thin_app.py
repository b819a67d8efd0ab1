"""What a federation's server hands to Flower for every run: a bundle that names installed code and holds none."""

import warnings
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from fedsafe.errors import ConfigError


def build_thin_app(app: Path) -> bytes:
    """The bytes of the bundle; the same files give the same bytes.

    Args:
        app: The folder with its ``pyproject.toml``.

    Raises:
        ConfigError: Flower does not take it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what Flower itself calls
            return bytes(build_fab_from_disk(app))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{app} is no Flower app: {error}") from error
