"""Choose settings for each budget by a small search, on records that the final figures never come from.

``docs/decisions/0020-tuning.md`` says why trials are drawn as they are, and what is told of them.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import nn

from fedsafe.data import Task, load_task
from fedsafe.errors import ConfigError
from fedsafe.runs.cells import Result, code_digest, compute_cells, named_code
from fedsafe.runs.comparison import CLIPPED, Cell, Comparison
from fedsafe.runs.comparison_cell import released
from fedsafe.runs.config import Config, apply_override, make_config
from fedsafe.runs.keys import data_fingerprint
from fedsafe.runs.stacked_runs import prepare_runs
from fedsafe.runs.tuning_cell import TrialStore, tuning_cells
from fedsafe.runs.tuning_draws import Draws, Law, Searcher, draws_of, other_searches, require_optuna
from fedsafe.runs.tuning_space import Axis, read_axes
from fedsafe.runs.tuning_split import PUBLIC, TUNING, check_evaluation, part_of, part_spec

On = Literal["held-out", "public"]
DEFAULT_TRIALS = 8

Place = tuple[tuple[tuple[str, str], ...], float]
"""A series and a budget: what settings are chosen for."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What to search.

    Args:
        names: Settings, as ``--tune`` has them; see `fedsafe.runs.tuning_space.read_axes`.
        trials: How many there are for each budget: on average, where their number is a secret.
        on: ``"held-out"``: trials train on the private records, with the noise of the budget, and are scored on a part
            of the evaluation records that is kept apart. ``"public"``: they train and are scored on that part, which is
            declared public.

    Raises:
        ConfigError: There are no trials, or ``on`` is something else.
    """

    names: Sequence[str]
    trials: int = DEFAULT_TRIALS
    on: On = "held-out"

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError(f"--trials {self.trials}: give a whole number from 1")
        if self.on not in get_args(On):
            raise ConfigError(f"--tune-on {self.on!r} is unknown: use {' or '.join(get_args(On))}")

    @property
    def fraction(self) -> float:
        """Share of the evaluation records that the search sees."""
        return PUBLIC if self.on == "public" else TUNING


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of a search.

    Args:
        number: From 0.
        values: Key of the configuration to value, as text.
        result: See `fedsafe.runs.tuning_cell.tuning_cells`.
    """

    number: int
    values: Mapping[str, str]
    result: Result


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the search for one budget found.

    Args:
        axes: What was searched for this budget.
        values: What was chosen: key of the configuration to value, as text; empty where there was no trial.
        best: Which trial that was; None where there was none.
        trials: All of them.
        law: Of their number.
        alternatives: Releases of every plan that the search chose between; one, if there is only one.
    """

    axes: Sequence[Axis]
    values: Mapping[str, str]
    best: int | None
    trials: Sequence[Trial] = field(repr=False)
    law: Law
    alternatives: Sequence[Mapping[str, Any]] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TunedComparison(Comparison):
    """A comparison in which each budget has settings of its own.

    Args:
        chosen: What differs from the base, for each series and budget.
    """

    chosen: Mapping[Place, Mapping[str, str]]

    def cells(self) -> Iterator[Cell]:
        """Every cell, with what was chosen for it."""
        for cell in super().cells():
            values = self.chosen.get(place_of(cell), {})
            yield replace(cell, config=with_values(cell.config, values)) if values else cell


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A search that is done.

    Args:
        comparison: With the chosen settings, judged on the records that nothing was tuned on.
        data: A task in place of the configured one, with these records; None for the configured one.
        axes: What was searched.
        found: What was found, for each series and budget.
        earlier: How many other searches the folder has had, which this one's cost leaves out.
    """

    comparison: TunedComparison
    data: Task | None
    axes: Sequence[Axis]
    found: Mapping[Place, Found]
    earlier: int


def tune(
    comparison: Comparison,
    tuning: Tuning,
    private: Path,
    *,
    workers: int = 1,
    stack: int = 8,
    model: nn.Module | None = None,
    data: Task | None = None,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> Tuned:
    """Search, for each series and budget, settings that score best.

    Args:
        comparison: Its budgets.
        tuning: What to search.
        private: Where the search's secrets and trials are kept; made for its owner alone.
        workers: Processes.
        stack: Trials that one trains together.
        model: A module in place of the configured one.
        data: A task in place of the configured one.
        on_done: Told how many trials are there, and of how many.

    Raises:
        FedSafeError: Something cannot be searched, which is said before anything is trained; or a trial failed.
    """
    require_optuna()
    if comparison.paired:
        raise ConfigError(
            "--tune chooses settings for each budget, so that no two runs differ in their noise alone: leave --paired "
            "or --tune out"
        )
    base = comparison.base
    check_evaluation(base.data.evaluation)
    axes = read_axes(tuning.names, comparison)
    whole = load_task(base.task) if data is None else data
    part: Literal["tuning", "public"] = "public" if tuning.on == "public" else "tuning"
    scored = part_of(whole, part, tuning.fraction)
    kept = part_of(whole, "kept", tuning.fraction)

    def on_part(name: Literal["tuning", "public", "kept"]) -> Comparison:
        spec = {} if data is not None else {"task": part_spec(base.task, name, tuning.fraction)}
        return replace(comparison, base=base.model_copy(update=spec))

    trained = on_part(part)
    given = data is not None
    searches = _searches(
        trained, tuning, axes, private, whole=whole, model=model, data=scored if given else None
    )
    results = _train(searches, tuning, private, workers, stack, model, scored if given else None, on_done)
    found = {
        place: _found(search, results[place], search.searcher.best()) for place, search in searches.items()
    }
    final = on_part("kept")
    tuned = TunedComparison(
        **{one.name: getattr(final, one.name) for one in fields(final)},
        chosen={place: one.values for place, one in found.items()},
    )
    return Tuned(
        comparison=tuned,
        data=kept if given else None,
        axes=axes,
        found=found,
        earlier=other_searches(private, [search.draws for search in searches.values()]),
    )


@dataclass(frozen=True, kw_only=True)
class _Search:
    """One search before and while it is made."""

    cell: Cell
    searcher: Searcher
    draws: Draws
    law: Law
    alternatives: Sequence[Mapping[str, Any]]


def _searches(
    comparison: Comparison,
    tuning: Tuning,
    axes: Sequence[Axis],
    private: Path,
    *,
    whole: Task,
    model: nn.Module | None,
    data: Task | None,
) -> dict[Place, _Search]:
    searches = {}
    several: dict[Any, bool] = {}
    records = _fingerprint(whole, model)
    seed = comparison.base.seed if comparison.base.privacy.noise_key == "seed" else None
    for cell in replace(comparison, seeds=1).cells():
        here = [
            axis for axis in axes if axis.acts(cell.epsilon, comparison.levels_of(cell.series), cell.config)
        ]
        alternatives: list[Mapping[str, Any]] = []
        if is_guarded(cell.config) and here:
            # Noise differs from budget to budget; whether a setting changes it does not.
            kind = tuple(cell.series.items())
            if several.get(kind, True):
                alternatives = _alternatives(cell, here, model, data)
                several[kind] = len(alternatives) > 1
        # A search between plans has no known bound for a random number of runs.
        secret = tuning.on != "public" and is_guarded(cell.config) and len(alternatives) < 2
        law: Law = "poisson" if secret else "fixed"
        described = [cell.config.digest, [repr(axis) for axis in here], tuning.on]
        made_by = [code_digest(), *named_code(cell.config), records]
        draws = draws_of(private, described, mean=tuning.trials, law=law, seed=seed, made_by=made_by)
        searches[place_of(cell)] = _Search(
            cell=cell,
            searcher=Searcher(here, draws, adaptive=tuning.on == "public"),
            draws=draws,
            law=law,
            alternatives=alternatives,
        )
    return searches


def is_guarded(config: Config) -> bool:
    """Whether a level has noise."""
    return any(level.epsilon < CLIPPED for level in (config.privacy.record, config.privacy.client))


def _alternatives(
    cell: Cell, axes: Sequence[Axis], model: nn.Module | None, data: Task | None
) -> list[Mapping[str, Any]]:
    """Releases of every plan that settings lead to; where they lead to one, one.

    Raises:
        ConfigError: A range leads to more plans than can be paid for.
        FedSafeError: A value makes no plan.
    """

    def planned(configs: Sequence[Config]) -> list[Mapping[str, Any]]:
        return [{"releases": released(run.plan)} for run in prepare_runs(configs, model=model, data=data)]

    changing: list[Axis] = []
    configs = [cell.config]
    for axis in axes:
        configs += [with_values(cell.config, {axis.key: value}) for value in axis.ends()]
    found = planned(configs)
    first, rest = found[0], found[1:]
    for axis in axes:
        mine, rest = rest[: len(axis.ends())], rest[len(axis.ends()) :]
        if any(one != first for one in mine):
            if not axis.values:
                raise ConfigError(
                    f"--tune {axis.name}: each value is another plan, and every one has to be paid for; "
                    f"give a few, {axis.name}=a,b,c, or use --tune-on public"
                )
            changing.append(axis)
    if not changing:
        return [first]
    combined: list[dict[str, str]] = [{}]
    for axis in changing:
        combined = [{**one, axis.key: value} for one in combined for value in axis.values]
    distinct: list[Mapping[str, Any]] = []
    for one in planned([with_values(cell.config, values) for values in combined]):
        if one not in distinct:
            distinct.append(one)
    return distinct


def _train(
    searches: Mapping[Place, _Search],
    tuning: Tuning,
    private: Path,
    workers: int,
    stack: int,
    model: nn.Module | None,
    data: Task | None,
    on_done: Callable[[int, int], None],
) -> dict[Place, dict[int, Result]]:
    """Train all trials: at once, or where later ones follow from earlier ones, a third at a time."""
    work = functools.partial(tuning_cells, model=model, data=data)
    found: dict[Place, dict[int, Result]] = {place: {} for place in searches}
    count = (
        -(-tuning.trials // 3) if tuning.on == "public" else max(s.draws.trials for s in searches.values())
    )
    of = sum(search.draws.trials for search in searches.values() if search.searcher.axes)
    done = 0
    while True:
        asked = [
            (place, number, with_values(search.cell.config, values), search)
            for place, search in searches.items()
            for number, values in search.searcher.ask(max(1, count))
        ]
        if not asked:
            return found
        labels = {
            id(config): f"{search.draws.name} {search.draws.key.hex()} {number}"
            for _, number, config, search in asked
        }
        store = TrialStore(private, work=tuning_cells.__name__, labels=labels)
        results = compute_cells(
            [config for _, _, config, _ in asked],
            work,
            store,
            workers=workers,
            stack=stack,
            on_done=lambda now, _, before=done: on_done(before + now, of),  # type: ignore[misc]
        )
        done += len(asked)
        for (place, number, _, search), result in zip(asked, results, strict=True):
            found[place][number] = result
            score = result["score"]
            search.searcher.tell([(number, float("nan") if score is None else float(score))])


def _found(
    search: _Search, results: Mapping[int, Result], best: tuple[int, Mapping[str, str]] | None
) -> Found:
    return Found(
        axes=search.searcher.axes,
        values={} if best is None else best[1],
        best=None if best is None else best[0],
        trials=[
            Trial(number=number, values=search.searcher.asked[number], result=result)
            for number, result in sorted(results.items())
        ],
        law=search.law,
        alternatives=search.alternatives,
    )


def place_of(cell: Cell) -> Place:
    """The series and the budget of a cell."""
    return tuple(cell.series.items()), cell.epsilon


def with_values(config: Config, values: Mapping[str, str]) -> Config:
    """A configuration with some values changed: always another object.

    Raises:
        ConfigError: A value does not fit.
    """
    plain = config.model_dump(exclude_none=True)
    for key, value in values.items():
        apply_override(plain, f"{key}={value}")
    return make_config(plain)


def _fingerprint(task: Task, model: nn.Module | None) -> str:
    """Of the records, and of a module's weights: a search on others is another one.

    It has no key, and so may only be a part of what stays in ``private/``.
    """
    arrays = [
        np.frombuffer(task.description.encode(), np.uint8),
        *(array for examples in (task.train, task.evaluation) for array in (examples.x, examples.y)),
    ]
    if model is not None:
        arrays.append(np.frombuffer(repr(model).encode(), np.uint8))
        arrays += [value.detach().cpu().numpy() for _, value in sorted(model.state_dict().items())]
    return data_fingerprint(b"", arrays)
