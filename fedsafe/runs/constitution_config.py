"""``[assess] constitution``: a file, which the run keeps a copy of, so that it is judged by what it began with."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from fedsafe.alignment.constitution import parse_constitution, read_constitution
from fedsafe.assess.constitution import constitution_requirements
from fedsafe.errors import ConfigError


def _table(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        constitution, about = read_constitution(value), value
    elif isinstance(value, Mapping):
        constitution, about = parse_constitution(value, "assess.constitution"), "assess.constitution"
    else:
        raise ConfigError(f"assess.constitution = {value!r}: it is the name of a TOML file")
    try:
        rules = constitution_requirements(constitution)
    except ConfigError as error:
        raise ConfigError(f"{about}: {error}") from error
    if not rules:
        raise ConfigError(
            f"{about} has no principle of scope 'model': a run judges models; `fedsafe constitution guard` holds a "
            "text generator to the others"
        )
    return constitution.to_table()


ConstitutionTable = Annotated[dict[str, Any] | None, BeforeValidator(_table)]
"""A constitution as plain values; where it is written as a path, the file is read once, when the configuration is."""
