"""FedSafe: private, assessed federated learning.

    import fedsafe

    run = fedsafe.run("experiments/adult.toml")
    print(run.claims[0]["statement"])
    run.findings()
    fedsafe.compare("experiments/adult.toml", epsilons=[1, 8, float("inf")]).summary()
    fedsafe.assess(model, data)  # a model of one's own, outside any run

What is slow to import is imported when it is used.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from fedsafe.assess.calling import assess
    from fedsafe.data import Task
    from fedsafe.runs import Callback, Config, Run
    from fedsafe.runs.comparison_result import ComparisonResult
else:

    def __getattr__(name: str) -> Any:
        """``fedsafe.assess``: the package, which can be called; imported when it is asked for."""
        if name != "assess":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return importlib.import_module("fedsafe.assess")


__version__ = "0.1.0"
__all__ = ["assess", "compare", "open_run", "resume", "run"]


def run(
    config: "Config | Mapping[str, Any] | Path | str | None" = None,
    *,
    model: "nn.Module | None" = None,
    data: Any = None,
    about: Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    callbacks: "Sequence[Callback]" = (),
) -> "Run":
    """Train a federation privately, assess its model, and write a record and a report.

    Args:
        config: A TOML file, plain values, or a :class:`fedsafe.runs.Config`; the default experiment if left out.
        model: A module to train in place of ``config.model``; its weights are the start.
        data: What to train on in place of ``config.task``: a task, or arrays, tensors, a data frame or a callable that
            gives each client's data set, see :func:`fedsafe.data.as_task`.
        about: What is public about data that is no task: arguments of ``as_task``, such as ``{"low": 0, "high": 1}``.
        out: The run folder; by default a new one under ``runs/``.
        callbacks: Told what happens, see :class:`fedsafe.runs.Callback`.

    Returns:
        The complete run; ``run.path / "report.html"`` is its page.

    Raises:
        FedSafeError: Something cannot be used as it is; the message says what, the value, and what to do.
    """
    from fedsafe import report, runs

    finished = runs.run(config, model=model, data=_task(data, about), out=out, callbacks=callbacks)
    report.write_report(finished.path)
    return finished


def resume(
    path: Path | str,
    *,
    model: "nn.Module | None" = None,
    data: Any = None,
    about: Mapping[str, Any] | None = None,
    callbacks: "Sequence[Callback]" = (),
) -> "Run":
    """Go on with a run that was interrupted, exactly as if it had not been.

    Args:
        path: The run folder, with its private part.
        model: The module, if the run was started with one.
        data: The data, if the run was started with some.
        about: What was said about it.
        callbacks: Told what happens.

    Raises:
        FedSafeError: The folder, its ledger or its key is not the one that the run began with.
    """
    from fedsafe import report, runs

    finished = runs.resume(path, model=model, data=_task(data, about), callbacks=callbacks)
    report.write_report(finished.path)
    return finished


def compare(
    config: "Config | Mapping[str, Any] | Path | str | None" = None,
    *,
    epsilons: Sequence[float | str] | None = None,
    seeds: int = 5,
    unit: str | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    paired: bool = False,
    model: "nn.Module | None" = None,
    data: Any = None,
    about: Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    workers: int = 1,
    stack: int = 8,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> "ComparisonResult":
    """Train every budget with several seeds, all as one stack, and show what privacy costs, and whom.

    Args:
        config: What does not differ: a TOML file, plain values, or a :class:`fedsafe.runs.Config`; the default
            experiment if left out.
        epsilons: Budgets, each above 0: infinity is no privacy, ``"clipped"`` is no noise. 0.5, 1, 2, 4, 8 and infinity
            if left out.
        seeds: Runs of each budget, which differ in partition, weights and noise.
        unit: ``"record"``, ``"client"`` or ``"both"``: whom the budgets are for; by default the levels that have a
            target.
        grid: Keys of the configuration to values, such as ``{"rounds": [20, 40]}``: a series of budgets for each
            combination. The key ``"unit"`` has units. Series whose claims are unlike stand on axes of their own.
        paired: Share cohorts, batches and noise between the runs of a seed, for differences without chance; needs
            ``privacy.noise_key = "seed"``, and claims nothing.
        model: A module to train in place of ``config.model``; its weights are the start of every run.
        data: What to train on in place of ``config.task``, as in :func:`run`.
        about: What is public about data that is no task, as in :func:`run`.
        out: A folder that gets what the command writes, page included, and goes on with what it has; None to keep
            nothing but the result.
        workers: Processes. With more than one, a script needs the guard ``if __name__ == "__main__":``.
        stack: Runs that a process trains together.
        on_done: Told how many runs are there, and of how many.

    Returns:
        Its data frames, page and claims; ``save`` writes a folder.

    Raises:
        FedSafeError: Something cannot be used as it is; the message says what, the value, and what to do.
    """
    from fedsafe.report.comparison import render_comparison
    from fedsafe.runs.comparison_result import compare as compare_runs

    options: dict[str, Any] = {} if epsilons is None else {"epsilons": epsilons}
    return compare_runs(
        config,
        seeds=seeds,
        unit=unit,  # type: ignore[arg-type]  # refused there
        grid=grid,
        paired=paired,
        model=model,
        data=_task(data, about),
        out=out,
        workers=workers,
        stack=stack,
        on_done=on_done,
        render=lambda body: render_comparison(body, "fedsafe.compare(...)"),
        **options,
    )


def open_run(path: Path | str) -> "Run":
    """Read a run folder, or a shared copy of one.

    Raises:
        RecordError: It is not a run folder.
    """
    from fedsafe import runs, store

    return runs.Run(store.RunFolder.open(path).path)


def _task(data: Any, about: Mapping[str, Any] | None) -> "Task | None":
    from fedsafe.data import as_task
    from fedsafe.errors import ConfigError

    if about is not None and (not isinstance(about, Mapping) or "data" in about):
        raise ConfigError(
            f"`about` is {about!r}: give a mapping of what is public about the data, such as {{'low': 0, 'high': 1}}, "
            "and the data itself as `data`"
        )
    if data is None and about:
        raise ConfigError(
            f"`about` says {', '.join(about)} of data that is not given: give `data`, or leave it out"
        )
    return None if data is None else as_task(data, **(about or {}))
