"""Runs any unmodified Flower app on our grids."""

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from fedsafe.engine.flower_app import FlowerApp
from fedsafe.engine.grid import SERVER_NODE, InlineGrid, LocalGrid, Tally
from fedsafe.engine.results import Rounds, results_of_strategies
from fedsafe.errors import EngineError, FedSafeError
from fedsafe.extensions import one_line


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What a simulation did.

    Args:
        nodes: How many there were.
        metrics: By phase (``train``, ``evaluate_clients``, ``evaluate_server``) and round, as the strategy returned
            them; empty where the app has no strategy.
        result: The ``Result`` of the last strategy; None where there is none.
        tally: Messages and replies.
        seconds: That the ServerApp ran, without the start of the workers.
    """

    nodes: int
    metrics: dict[str, Rounds]
    result: Result | None
    tally: Tally
    seconds: float

    @property
    def rounds(self) -> int:
        """The last round that has a metric."""
        return max((number for rounds in self.metrics.values() for number in rounds), default=0)


def simulate(
    app: FlowerApp,
    *,
    nodes: int,
    workers: int,
    chunk: int | None = None,
    address: str | None = None,
    engine: Literal["ray", "inline"] = "ray",
    wrap: Callable[[LocalGrid], Grid] = lambda grid: grid,
) -> Simulation:
    """Run a Flower app.

    Args:
        app: The project.
        nodes: How many nodes run its ClientApp.
        workers: Processes that do, on Ray.
        chunk: Messages that one goes for at a time; see `fedsafe.engine.ray_grid.RayGrid`.
        address: Of a Ray cluster to join.
        engine: ``"inline"`` runs everything in this process, with real tracebacks.
        wrap: Puts a grid around the grid, such as `fedsafe.engine.AvailabilityGrid`.

    Raises:
        ConfigError: An app cannot be loaded.
        EngineError: The ServerApp failed, or workers were lost that cannot be replaced.
    """
    server = app.load_server()
    make_client = app.make_client()
    with ExitStack() as stack:
        grid: LocalGrid
        if engine == "inline":
            grid = InlineGrid(clients=nodes, apps=make_client(), chunk=chunk, run_config=app.run_config)
        else:
            grid = _ray_grid(stack, make_client, nodes, workers, chunk, address, app.run_config)
        context = Context(
            run_id=grid.run.run_id,
            node_id=SERVER_NODE,
            node_config={},
            state=RecordDict(),
            run_config=dict(app.run_config),
        )
        # What is loaded stays: the garbage collector need not walk through it in the middle of a round.
        gc.freeze()
        stack.callback(gc.unfreeze)
        began = time.perf_counter()
        with results_of_strategies() as results:
            try:
                server(wrap(grid), context)
            except FedSafeError:
                raise
            except (Exception, SystemExit) as error:  # the app is the user's code, which may raise anything
                raise EngineError(f"the ServerApp {app.server!r} failed: {one_line(error)}") from error
        return Simulation(
            nodes=nodes,
            metrics=results.metrics(),
            result=results.found[-1] if results.found else None,
            tally=grid.tally,
            seconds=time.perf_counter() - began,
        )


def _ray_grid(
    stack: ExitStack,
    make_client: Callable[[], Any],
    nodes: int,
    workers: int,
    chunk: int | None,
    address: str | None,
    run_config: dict[str, Any],
) -> LocalGrid:
    # Ray costs a second to import, and an inline run does not need it.
    from fedsafe.engine.ray_grid import RayGrid

    grid = RayGrid(
        clients=nodes,
        make_apps=make_client,
        workers=workers,
        chunk=chunk,
        address=address,
        run_config=run_config,
    )
    stack.callback(grid.close)
    grid.wait_until_ready()
    return grid


def lines_of(metrics: dict[str, Rounds]) -> Sequence[str]:
    """One line for each round and phase, for people."""
    found = []
    for number in sorted({number for rounds in metrics.values() for number in rounds}):
        for phase, rounds in metrics.items():
            if number in rounds:
                shown = ", ".join(f"{name} {_shown(value)}" for name, value in rounds[number].items())
                found.append(f"round {number:3d}  {phase.replace('_', ' '):16s}  {shown}")
    return found


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
