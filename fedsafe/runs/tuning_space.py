"""What a search chooses between: names and ranges as ``--tune`` has them."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedsafe.errors import ConfigError
from fedsafe.runs.comparison import CLIPPED, Comparison, named_twice
from fedsafe.runs.config import Config, apply_override, make_config

SHORT = {
    "lr": "client.optimizer.lr",
    "server-lr": "server.optimizer.lr",
    "momentum": "server.optimizer.momentum",
    "rate": "client.rate",
    "steps": "client.steps",
    "record-clip": "privacy.record.clip",
    "client-clip": "privacy.client.clip",
}
"""Names of the usual ones; ``clip`` is the record level's where that has a target, and else the client level's."""

REACH = 4.0
"""By default a search goes to so many times the configured value, and to so little of it."""

# What a search may choose of the section `privacy`: anything else is what the budget is about.
_OF_PRIVACY = ("privacy.record.clip", "privacy.client.clip", "privacy.record.max_participations")
# Another partition has other clients.
_OF_CLIENTS = ("federation.partition", "federation.clients")
_RANGE = re.compile(r"^\s*([-+.\deE]+?)\s*\.\.\s*([-+.\deE]+)\s*$")
# From 0 to nearly 1, so that a logarithm has no place.
_DECAYS = ("momentum", "beta1", "beta2")
_MOST_DECAY = 0.95
_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One setting that is searched.

    Args:
        name: As it was asked for.
        key: Of the configuration.
        values: To choose from, as text; empty for a range.
        low: Of a range.
        high: Of a range.
        log: Whether the logarithm is uniform.
        whole: Whether only whole numbers are meant.
    """

    name: str
    key: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def at(self, share: float) -> str:
        """The value at a share of the way, in [0, 1), as text: uniform shares give independent draws.

        Numbers have four digits, so that what is printed is what was used.
        """
        if self.values:
            return self.values[int(share * len(self.values))]
        if self.whole:
            return str(int(self.low) + int(share * (int(self.high) - int(self.low) + 1)))
        if self.log:
            return self.shown(
                math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
            )
        return self.shown(self.low + share * (self.high - self.low))

    def shown(self, value: float) -> str:
        """A number of the range, with four digits."""
        if self.whole:
            return str(round(value))
        return repr(min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high))

    def ends(self) -> tuple[str, ...]:
        """Every value, or both ends of a range."""
        if self.values:
            return self.values
        return (str(int(self.low)), str(int(self.high))) if self.whole else (repr(self.low), repr(self.high))

    def acts(self, epsilon: float, levels: Sequence[str], base: Config) -> bool:
        """Whether it changes a run with this budget: without privacy at a level there is no clip."""
        for level in ("record", "client"):
            if self.key.startswith(f"privacy.{level}."):
                target = epsilon if level in levels else getattr(base.privacy, level).epsilon
                return math.isfinite(target) and (target != CLIPPED or self.key.endswith(".clip"))
        return True


def read_axes(requests: Sequence[str], comparison: Comparison) -> tuple[Axis, ...]:
    """The settings that a request names.

    Args:
        requests: Such as ``"clip,lr"``, ``"lr=0.1..10"`` or ``"client.steps=1,2,4"``: what has no values of its own is
            searched around the configured one.
        comparison: Of which budgets.

    Raises:
        ConfigError: A name is unknown or named twice, a range is empty, or a value does not fit.
    """
    asked: dict[str, list[str]] = {}
    for name, value in itertools.chain.from_iterable(map(_pieces, requests)):
        if value is None and name in asked:
            raise ConfigError(f"--tune names {name} twice: leave one out")
        asked.setdefault(name, []).extend([] if value is None else [value])
    if not asked:
        raise ConfigError("--tune names nothing: give settings with commas between them, such as clip,lr")
    axes = [_axis(name, values, comparison) for name, values in asked.items()]
    for number, axis in enumerate(axes):
        if axis.key in [other.key for other in axes[:number]]:
            raise ConfigError(f"--tune names {axis.key} twice: leave one out")
        _check(axis, comparison)
    return tuple(axes)


def _pieces(request: str) -> Iterator[tuple[str, str | None]]:
    """Names, each with one of its values or with None: a word that is no name is another value of the last one."""
    name, open_ = "", False
    for piece in request.split(","):
        head, equals, value = (part.strip() for part in piece.partition("="))
        if not equals and not head:
            continue
        if not equals and open_ and not _is_name(head):
            yield name, head
            continue
        if not head or (equals and not value):
            raise ConfigError(
                f"--tune {piece.strip()!r} is not of the form name, name=low..high or name=a,b,c"
            )
        name, open_ = re.sub(r"[ _]", "-", head) if "." not in head else head, bool(equals)
        name = name if name in SHORT or name == "clip" else head
        yield name, value or None


def _is_name(word: str) -> bool:
    short = re.sub(r"[ _]", "-", word)
    dotted = "." in word and word[0].isalpha()
    return short in SHORT or short == "clip" or word in Config.model_fields or dotted


def _axis(name: str, values: Sequence[str], comparison: Comparison) -> Axis:
    base = comparison.base
    key = SHORT.get(name, name)
    if name == "clip":
        level = (
            "record"
            if "record" in comparison.levels or math.isfinite(base.privacy.record.epsilon)
            else "client"
        )
        key = f"privacy.{level}.clip"
    if key.startswith("privacy") and key not in _OF_PRIVACY:
        raise ConfigError(
            f"--tune {name}: it is part of the guarantee that is compared; of privacy, {', '.join(_OF_PRIVACY)} can be "
            "tuned"
        )
    now = _configured(key, base)
    number = isinstance(now, int | float) and not isinstance(now, bool)
    found = [match for value in values if (match := _RANGE.match(value))]
    if found:
        if len(values) > 1:
            raise ConfigError(f"--tune {name} has a range and other values: give one range, or values alone")
        return _range(name, key, found[0].group(1), found[0].group(2), whole=_whole(now))
    if values:
        repeated = named_twice(values)
        if repeated is not None or len(values) < 2:
            what = f"has the one value {values[0]}" if repeated is None else f"names {repeated}"
            raise ConfigError(f"--tune {name} {what}: give two different ones, or use --set")
        return Axis(name=name, key=key, values=tuple(values))
    if not number:
        _refuse_unknown(key, base)
        raise ConfigError(f"--tune {name}: it has no range of its own; give {name}=low..high or {name}=a,b,c")
    return _around(name, key, now)


def _around(name: str, key: str, now: float) -> Axis:
    """The default: around what is configured."""
    if key.rpartition(".")[2] in _DECAYS:
        return Axis(name=name, key=key, low=0.0, high=_MOST_DECAY)
    if key in ("client.rate", "federation.cohort.rate"):
        return Axis(name=name, key=key, values=_distinct([now / 2, now, min(1.0, 2 * now)]))
    if _whole(now):
        return Axis(name=name, key=key, values=_distinct([max(1, now // 2), now, 2 * now]))
    if not now > 0.0:
        raise ConfigError(
            f"--tune {name}: it is {now:g} now, and has no range around that; give {name}=low..high"
        )
    return Axis(name=name, key=key, low=now / REACH, high=now * REACH, log=True)


def _distinct(values: Sequence[float]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{value:g}" for value in values))


def _range(name: str, key: str, low: str, high: str, *, whole: bool) -> Axis:
    try:
        ends = float(low), float(high)
    except ValueError:
        raise ConfigError(f"--tune {name}={low}..{high}: both ends must be numbers") from None
    if not (math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] < ends[1]):
        raise ConfigError(f"--tune {name}={low}..{high} is empty: the lower end comes first, and is smaller")
    if whole and any(end != int(end) for end in ends):
        raise ConfigError(f"--tune {name}={low}..{high}: it is a whole number, so give whole ends")
    decay = key.rpartition(".")[2] in _DECAYS
    return Axis(
        name=name,
        key=key,
        low=ends[0],
        high=ends[1],
        log=ends[0] > 0.0 and not decay and not whole,
        whole=whole,
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _configured(key: str, base: Config) -> Any:
    found: Any = base.model_dump()
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            _refuse_unknown(key, base)
            return None
        found = found[part]
    return found


def _refuse_unknown(key: str, base: Config) -> None:
    """Raises what the configuration says of a key that it does not have."""
    values = base.model_dump(exclude_none=True)
    apply_override(values, f"{key}=1")
    try:
        make_config(values)
    except ConfigError as error:
        if "unknown configuration key" in str(error):
            raise ConfigError(f"--tune: {error}; short names: clip, {', '.join(SHORT)}") from None


def _check(axis: Axis, comparison: Comparison) -> None:
    """Refuse a setting that is not for comparing, and a value that a configuration cannot have."""
    if axis.key in comparison.grid:
        raise ConfigError(f"--tune {axis.name}: {axis.key} is in --grid, too: leave one out")
    if not any(axis.acts(epsilon, comparison.levels, comparison.base) for epsilon in comparison.epsilons):
        raise ConfigError(
            f"--tune {axis.name}: no run here has privacy at that level, so {axis.key} does nothing"
        )
    if _whose(axis.key) and _hides_clients(comparison):
        raise ConfigError(
            f"--tune {axis.name}: it decides who a client is, and a budget here protects clients: each value would "
            "protect others; use --grid, or --unit record without a client-level target"
        )
    if axis.key == "unit":
        raise ConfigError("--tune unit: it is the guarantee that is compared; use --unit")
    try:
        for _ in replace(comparison, grid={axis.key: list(axis.ends())}, seeds=1).cells():
            pass
    except ConfigError as error:
        text = str(error).replace("--grid", "--tune")
        raise ConfigError(text if "--tune" in text else f"--tune {axis.name}: {text}") from error


def _whose(key: str) -> bool:
    """Whether a setting decides which records a client has."""
    return any(key == name or key.startswith(f"{name}.") for name in _OF_CLIENTS)


def _hides_clients(comparison: Comparison) -> bool:
    """Whether a run of any budget has noise for clients."""
    if comparison.base.privacy.client.epsilon < CLIPPED and "client" not in comparison.levels:
        return True
    return "client" in comparison.levels and min(comparison.epsilons) < CLIPPED
