"""A comparison as its reader sees it: data frames, and the folder that the command writes."""

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from fedsafe.data import Task
from fedsafe.errors import ConfigError, RecordError
from fedsafe.runs.cells import CellStore
from fedsafe.runs.compare import Computed, compute_comparison
from fedsafe.runs.comparison import DEFAULT_EPSILONS, DEFAULT_SEEDS, Comparison, Unit, read_budget
from fedsafe.runs.comparison_tables import finding_table, run_table, series_columns, write_tables
from fedsafe.runs.config import Config, make_config, read_config
from fedsafe.runs.given import GIVEN_IN_PYTHON
from fedsafe.runs.keys import KEY_FILE, keep_key

if TYPE_CHECKING:
    import pandas as pd

# Makes a page of the content of ``comparison.json``.
Render = Callable[[Mapping[str, Any]], str]


def compare(
    config: Config | Mapping[str, Any] | Path | str | None = None,
    *,
    epsilons: Sequence[float | str] = DEFAULT_EPSILONS,
    seeds: int = DEFAULT_SEEDS,
    unit: Unit | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    paired: bool = False,
    model: nn.Module | None = None,
    data: Task | None = None,
    out: Path | str | None = None,
    workers: int = 1,
    stack: int = 8,
    on_done: Callable[[int, int], None] = lambda done, of: None,
    render: Render,
) -> "ComparisonResult":
    """Train every budget with several seeds, and put together what they found: see :func:`fedsafe.compare`.

    Args:
        config: What does not differ.
        epsilons: Budgets: numbers, infinity for no privacy, or ``"clipped"`` for no noise.
        seeds: How many runs each stands for.
        unit: Which level the budgets are for; by default each that has one.
        grid: Key of the configuration, or ``"unit"``, to values: a series of budgets for each combination.
        paired: Share cohorts, batches and noise between runs of a seed; needs ``privacy.noise_key = "seed"``.
        model: A module in place of ``config.model``.
        data: A task in place of ``config.task``.
        out: Where cells are kept; nowhere if left out.
        workers: Processes.
        stack: Runs that one trains together.
        on_done: Told how many runs are there, and of how many.
        render: Makes the page.

    Raises:
        FedSafeError: Something cannot be used as it is.
    """
    base = (
        config
        if isinstance(config, Config)
        else make_config(config)
        if isinstance(config, Mapping)
        else read_config(None if config is None else Path(config))
    )
    given = {name: GIVEN_IN_PYTHON for name, there in (("model", model), ("task", data)) if there is not None}
    axes = {str(key): [_text(value) for value in values] for key, values in (grid or {}).items()}
    for key in axes:
        if key.partition(".")[0] in given:
            raise ConfigError(
                f"the grid names {key}, and `{key.partition('.')[0]}` is given: leave one of the two out"
            )
    comparison = Comparison(
        base=base.model_copy(update=given),
        epsilons=[read_budget(str(epsilon)) for epsilon in epsilons],
        seeds=seeds,
        unit=unit,
        grid=axes,
        paired=paired,
    )
    options: dict[str, Any] = {
        "workers": workers,
        "stack": stack,
        "model": model,
        "data": data,
        "on_done": on_done,
    }
    for name in ("workers", "stack"):
        if options[name] < 1:
            raise ConfigError(f"{name} = {options[name]}: give a whole number from 1")
    if out is not None:
        result = ComparisonResult(
            computed=compute_comparison(comparison, Path(out), **options), render=render
        )
        result.save(out)
        return result
    with tempfile.TemporaryDirectory(prefix="fedsafe-comparison-") as folder:
        return ComparisonResult(
            computed=compute_comparison(comparison, Path(folder), **options), render=render
        )


def _text(value: Any) -> str:
    """A value of a grid as TOML; text stands as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {_inside(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inside, value))}]"
    return str(value)


def _inside(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else _text(value)


@dataclass(frozen=True, kw_only=True, repr=False)
class ComparisonResult:
    """What a comparison found.

    Args:
        computed: Its runs.
        render: Makes the page.
    """

    computed: Computed
    render: Render

    def __repr__(self) -> str:
        """In short: there is too much of it."""
        return f"ComparisonResult({self.body['task']}, {self.body['runs']} runs)"

    @property
    def body(self) -> dict[str, Any]:
        """The content of ``comparison.json``: see `fedsafe.runs.compare.summary`."""
        return self.computed.body

    @property
    def claims(self) -> list[dict[str, Any]]:
        """What an epsilon of this comparison says, for each panel and unit."""
        return list(self.body["axis"])

    @property
    def publishing(self) -> list[dict[str, Any]]:
        """What publishing all runs, and choosing the best, costs each unit."""
        return list(self.body["publishing"])

    def cells(self) -> "pd.DataFrame":
        """One row for each run: see `fedsafe.runs.comparison_tables.run_table`."""
        return run_table(self.computed.cells, self.computed.results, self.computed.keys)

    def findings(self) -> "pd.DataFrame":
        """One row for each finding of each run: see `fedsafe.runs.comparison_tables.finding_table`."""
        return finding_table(self.computed.cells, self.computed.results)

    def summary(self) -> "pd.DataFrame":
        """One row for each measure, series and budget.

        Columns: ``measure``, ``title``, ``unit``, ``direction``, what the grid names, ``budget`` (its name),
        ``epsilon`` (infinite without a guarantee), ``value``, ``low`` and ``high`` (a mean over seeds with its 95 %
        interval), ``n``, and ``lost``, ``lost_low`` and ``lost_high`` (the difference to the runs without privacy, in
        pairs).
        """
        return self._frame(self.body["curves"])

    def groups(self) -> "pd.DataFrame":
        """The same for the accuracy of each group, with ``attribute``: who pays for privacy."""
        frame = self._frame(self.body["groups"])
        names = {curve["key"]: curve["note"] for curve in self.body["groups"]}
        if not frame.empty:
            frame.insert(2, "attribute", frame["measure"].map(names))
        return frame

    def statements(self) -> "pd.DataFrame":
        """Each budget in other words: one row for each series, budget and unit."""
        import pandas as pd

        rows = self.body["statements"]
        return pd.DataFrame(
            [
                {**series_columns(row["series"]), **{k: v for k, v in row.items() if k != "series"}}
                for row in rows
            ]
        )

    def html(self) -> str:
        """The page, with everything inside."""
        return self.render(self.body)

    def save(self, folder: Path | str) -> Path:
        """Write what ``fedsafe compare`` writes: cells, tables, configurations and page.

        Args:
            folder: It is made if it is not there; a later comparison in it goes on with these cells.

        Returns:
            The page.

        Raises:
            RecordError: The folder cannot be written to.
        """
        out, done = Path(folder), self.computed
        try:
            store = CellStore(out, work=done.work)
            # Where the folder has a secret of its own, these cells are computed again when they are asked for there.
            if done.secret is not None and not (out / "private" / KEY_FILE).exists():
                keep_key(out / "private", done.secret)
            for key, result in zip(done.keys, done.results, strict=True):
                store.write(key, result)
            write_tables(out, done.cells, done.results, done.keys, done.body)
            page = out / "comparison.html"
            page.write_text(self.html(), encoding="utf-8")
        except OSError as error:
            raise RecordError(f"{out} cannot be written: {error.strerror}; choose another folder") from error
        return page

    def _frame(self, curves: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
        import pandas as pd

        rows = []
        for curve in curves:
            for point in curve["points"]:
                lost = point["lost"] or {}
                budget = point["epsilon"]
                rows.append(
                    {
                        "measure": curve["key"],
                        "title": curve["title"],
                        "unit": curve["unit"],
                        "direction": curve["direction"],
                        **series_columns(point["series"]),
                        "budget": budget,
                        "epsilon": math.inf if budget == "clipped" else float(budget),
                        **{end: point[end] for end in ("value", "low", "high", "n")},
                        **{
                            f"lost{name}": lost.get(end)
                            for name, end in (("", "value"), ("_low", "low"), ("_high", "high"))
                        },
                    }
                )
        return pd.DataFrame(rows)
