"""How many trials a search has, and which settings each of them gets: secrets, like the noise.

What is known of the choice of a random number of runs (Papernot and Steinke, 2022) is of runs that are drawn alike,
each without regard to the others, as many as chance says, where nobody learns how many there were. So both come from a
key of the operating system, which stays in ``private/`` with all trials. A search that costs nothing may look at its
earlier trials, and there Optuna's sampler asks.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedsafe.errors import ConfigError, RecordError
from fedsafe.rng import Stream, StreamId, key_from_seed, new_key
from fedsafe.runs.tuning_space import Axis
from fedsafe.store.files import replace_file

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

Law = Literal["poisson", "fixed"]
_UNIT = 2.0**-53


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The chance of one search.

    Args:
        name: Tells searches apart; it says nothing of the key.
        key: Secret.
        trials: How many there are: secret too, where the law is not ``"fixed"``.
    """

    name: str
    key: bytes = field(repr=False)
    trials: int

    def values(self, number: int, axes: Sequence[Axis]) -> dict[str, str]:
        """What a trial gets: drawn like every other's, and without regard to them."""
        words = _stream(self.key, "trial", number + 1).words(len(axes))
        return {
            axis.key: axis.at((word >> 11) * _UNIT) for axis, word in zip(axes, words.tolist(), strict=True)
        }


def draws_of(
    private: Path,
    described: Sequence[Any],
    *,
    mean: int,
    law: Law,
    seed: int | None,
    made_by: Sequence[str] = (),
) -> Draws:
    """The chance of a search: kept, so that an interrupted search goes on with the same trials.

    Args:
        private: A folder that only its owner reads; it is made if it is not there.
        described: What the search is, as plain values: another search has other chance.
        mean: How many trials there are, on average.
        law: ``"poisson"``: a random number, perhaps none. ``"fixed"``: that many.
        seed: Of a simulation that can be repeated, and guarantees nothing; None for a secret.
        made_by: Digests of the code and the records: on others it is another search, which is paid for beside the
            first. A simulation tries the same settings with them.

    Raises:
        RecordError: The folder cannot be used, or what is kept there is not whole.
    """
    described = [described, mean, law]
    name = _digest([*described, *made_by])
    path = private / "searches" / f"{name}.key"
    if seed is not None:
        key = hashlib.sha256(key_from_seed(seed) + _digest(described).encode()).digest()
    else:
        try:
            private.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            # A simulation with nothing to hide may have made it.
            private.chmod(0o700)
            path.parent.chmod(0o700)
            if not path.exists():
                replace_file(path, new_key())
            key = path.read_bytes()
        except OSError as error:
            raise RecordError(f"{path} cannot be used: {error.strerror}; choose another folder") from error
        if len(key) != len(new_key()):
            raise RecordError(f"{path} is not whole: remove it, and the search begins anew, at its own cost")
    return Draws(name=name, key=key, trials=mean if law == "fixed" else _poisson(key, mean))


def other_searches(private: Path, these: Iterable[Draws]) -> int:
    """How many more searches a folder has had."""
    return len({path.stem for path in (private / "searches").glob("*.key")} - {draws.name for draws in these})


def _digest(described: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def _poisson(key: bytes, mean: int) -> int:
    """By inversion: the least number up to which the law has so much."""
    from scipy.special import pdtrik

    share = (float(_stream(key, "number of trials", 1).words(1)[0] >> 11) + 0.5) * _UNIT
    # `pdtrik` solves for a real number, below zero where nothing is already as likely.
    return max(0, math.ceil(float(pdtrik(share, mean))))


def _stream(key: bytes, purpose: str, number: int) -> Stream:
    return Stream(key, StreamId(purpose=f"search, {purpose}", client=-1, round=number, digest=b""))


class Searcher:
    """One search: which trials, what they scored, and which was best.

    Args:
        axes: What is searched; none for no search.
        draws: Its chance.
        adaptive: Whether later trials may follow from earlier ones.

    Raises:
        ConfigError: Optuna is not installed.
    """

    def __init__(self, axes: Sequence[Axis], draws: Draws, *, adaptive: bool) -> None:
        self.axes, self.draws = tuple(axes), draws
        self._adaptive = adaptive
        self._optuna = require_optuna()
        self._study = self._new_study()
        self.asked: list[dict[str, str]] = []

    def ask(self, count: int) -> list[tuple[int, dict[str, str]]]:
        """The next trials: number and settings; fewer at the end, and none after it."""
        first = len(self.asked)
        for number in range(first, min(first + count, self.draws.trials) if self.axes else first):
            if not self._adaptive:
                drawn = self.draws.values(number, self.axes)
                self._study.enqueue_trial({axis.key: _number(axis, drawn[axis.key]) for axis in self.axes})
            trial = self._study.ask(self._distributions())
            self.asked.append({axis.key: _text(axis, trial.params[axis.key]) for axis in self.axes})
        return list(enumerate(self.asked))[first:]

    def tell(self, scores: Iterable[tuple[int, float]]) -> None:
        """What trials scored: higher is better, and what is no number is worst."""
        for number, score in scores:
            self._study.tell(number, score if score == score else -1e300)

    def best(self) -> tuple[int, dict[str, str]] | None:
        """The best trial, the first of equal ones; None where there was none."""
        if not self.asked:
            return None
        number = self._study.best_trial.number
        return number, self.asked[number]

    def _new_study(self) -> "Study":
        optuna = self._optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = (
            optuna.samplers.TPESampler(
                seed=int.from_bytes(self.draws.key[:4], "little"),
                n_startup_trials=max(2, self.draws.trials // 3),
            )
            if self._adaptive
            else optuna.samplers.RandomSampler(seed=0)  # everything is enqueued
        )
        study: Study = optuna.create_study(direction="maximize", sampler=sampler)
        return study

    def _distributions(self) -> "dict[str, BaseDistribution]":
        kinds = self._optuna.distributions
        found: dict[str, BaseDistribution] = {}
        for axis in self.axes:
            if axis.values:
                found[axis.key] = kinds.CategoricalDistribution(axis.values)
            elif axis.whole:
                found[axis.key] = kinds.IntDistribution(int(axis.low), int(axis.high))
            else:
                found[axis.key] = kinds.FloatDistribution(axis.low, axis.high, log=axis.log)
        return found


def require_optuna() -> Any:
    """Optuna.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("--tune needs Optuna: pip install 'fedsafe[tune]'") from error
    return optuna


def _number(axis: Axis, text: str) -> Any:
    return text if axis.values else int(text) if axis.whole else float(text)


def _text(axis: Axis, value: Any) -> str:
    return str(value) if axis.values else axis.shown(value)


def plain_axes(axes: Sequence[Axis]) -> list[Mapping[str, Any]]:
    """Axes as plain values."""
    return [
        {
            "name": axis.name,
            "key": axis.key,
            "values": list(axis.values) or None,
            "low": None if axis.values else axis.low,
            "high": None if axis.values else axis.high,
            "log": axis.log,
        }
        for axis in axes
    ]
