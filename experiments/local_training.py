"""Is federating worth it? Training alone, the federation's model and fine-tuning, for every client and budget.

    python experiments/local_training.py experiments/heart.toml --epsilon 1,3,inf --seeds 5 --out comparisons/heart

Each way costs a record the same epsilon (`fedsafe.runs.local_training`). Writes ``OUT/local.json``; finished cells are
kept in ``OUT/cells``, and the same command goes on after an interruption. The noise follows from the seed, so that the
figures are the same each time; nothing is then guaranteed against anyone who knows the seed.
"""

import functools
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fedsafe.errors import FedSafeError


def main(
    config: Annotated[Path, typer.Argument(help="A TOML file with a natural partition.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    epsilon: Annotated[str, typer.Option(metavar="E,E", help="Budgets of a record.")] = "0.5,1,2,4,8,inf",
    seeds: Annotated[int, typer.Option(help="Runs of each budget.")] = 5,
    alone: Annotated[str, typer.Option(metavar="ROUNDS,LR,MOMENTUM", help="Of training alone.")] = "20,1,0",
    fine_tuned: Annotated[str, typer.Option(metavar="ROUNDS,LR,MOMENTUM", help="Of fine-tuning.")] = "5,1,0",
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one for each processor.")] = None,
) -> None:
    """Train all three ways for every budget and seed, and write what they reach."""
    began = time.perf_counter()
    try:
        body = compare(
            config,
            out,
            epsilon.split(","),
            seeds,
            alone,
            fine_tuned,
            set_ or [],
            os.cpu_count() or 1 if workers is None else workers,
        )
    except FedSafeError as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(2) from None
    for row in body["rows"]:
        said = ", ".join(
            f"{name} {100 * way['all']['value']:.1f} % (worst {100 * way['worst']['value']:.1f} %)"
            for name, way in row["ways"].items()
        )
        typer.echo(f"epsilon {row['epsilon']}: {said}")
    typer.echo(f"written  {out / 'local.json'}  in {time.perf_counter() - began:.0f} s")


def compare(
    config: Path,
    out: Path,
    budgets: list[str],
    seeds: int,
    alone: str,
    fine_tuned: str,
    overrides: list[str],
    workers: int,
) -> dict[str, Any]:
    """What is shown, after writing it to ``OUT/local.json``."""
    from fedsafe.runs.cells import CellStore, compute_cells
    from fedsafe.runs.comparison import Comparison, read_budget
    from fedsafe.runs.config import read_config
    from fedsafe.runs.local_figures import local_body
    from fedsafe.runs.local_training import local_cells

    own = {"alone": _own(alone, "--alone"), "fine_tuned": _own(fine_tuned, "--fine-tuned")}
    comparison = Comparison(
        base=read_config(config, [*overrides, 'privacy.noise_key="seed"']),
        epsilons=[read_budget(name.strip()) for name in budgets],
        seeds=seeds,
        unit="record",
    )
    cells = list(comparison.cells())
    results = compute_cells(
        [cell.config for cell in cells],
        functools.partial(local_cells, **own),
        CellStore(out, work=f"local training {own}"),
        workers=workers,
        stack=16,
    )
    body = {
        "task": str(comparison.base.task),
        "rounds": comparison.base.rounds,
        "alone": vars(own["alone"]),
        "fine_tuned": vars(own["fine_tuned"]),
        **local_body(cells, results),
    }
    (out / "local.json").write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return body


def _own(text: str, option: str) -> Any:
    from fedsafe.errors import ConfigError
    from fedsafe.runs.local_plans import OwnTraining

    try:
        rounds, lr, momentum = text.split(",")
        numbers = int(rounds), float(lr), float(momentum)
    except ValueError:
        raise ConfigError(
            f"{option} {text!r}: give rounds, learning rate and momentum, as in 20,1.0,0.5"
        ) from None
    return OwnTraining(rounds=numbers[0], lr=numbers[1], momentum=numbers[2])


if __name__ == "__main__":
    typer.run(main)
