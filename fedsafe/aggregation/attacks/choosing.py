"""From the configuration's ``byzantine.attack`` to an attack: a name, a table with options, or an import path."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fedsafe.aggregation.attacks.base import Attack
from fedsafe.aggregation.attacks.mimic import Mimic
from fedsafe.aggregation.attacks.moments import Alie, InnerProductManipulation
from fedsafe.aggregation.attacks.own_rows import Gaussian, ModelReplacement, SignFlip
from fedsafe.aggregation.attacks.widest import MinMax, MinSum
from fedsafe.errors import ConfigError, FedSafeError
from fedsafe.extensions import one_line, resolve, unknown_option

ATTACKS: Mapping[str, Callable[..., Attack]] = MappingProxyType(
    {
        attack.name: attack
        for attack in (
            SignFlip,
            Gaussian,
            Alie,
            InnerProductManipulation,
            Mimic,
            MinMax,
            MinSum,
            ModelReplacement,
        )
    }
)
"""The built-in attacks on the aggregation, by name."""

AttackSpec = str | Mapping[str, Any]


def attack_name(spec: AttackSpec) -> str:
    """What a configuration calls an attack.

    Raises:
        ConfigError: A table has no name.
    """
    name = spec if isinstance(spec, str) else spec.get("name")
    if not isinstance(name, str):
        raise ConfigError(f'byzantine.attack = {dict(spec)!r} has no name: {{ name = "alie" }} is one')  # type: ignore[arg-type]
    return name


def build_attack(spec: AttackSpec) -> Attack:
    """An attack with its options.

    Args:
        spec: A name of ``ATTACKS`` or of an entry point ``fedsafe.attackers``; a table of a ``name`` and options; or
            ``"package.module:Class"``, whose instances are called as an :class:`Attack` is.

    Raises:
        ConfigError: Nothing has that name, or an option is unknown or out of range.
    """
    name = attack_name(spec)
    options = {} if isinstance(spec, str) else {key: value for key, value in spec.items() if key != "name"}
    factory = resolve("attacker", name, ATTACKS)
    wrong = unknown_option(factory, options)
    if wrong:
        raise ConfigError(f"byzantine.attack ({name}): {wrong}")
    try:
        made = factory(**options)
    except FedSafeError:
        raise
    except Exception as error:  # a user's own code may raise anything
        raise ConfigError(f"byzantine.attack = {name!r} cannot be made: {one_line(error)}") from error
    if not callable(made):
        raise ConfigError(
            f"byzantine.attack = {name!r} gives {type(made).__name__}, which is not an attack to call"
        )
    return made
