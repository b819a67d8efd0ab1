"""What a Flower app's strategy returned, whether or not the app keeps it.

Flower's runtimes drop it: an app that wants its ``Result`` elsewhere writes it itself. Here it is read from the
outside while the app runs, by wrapping ``start`` of the strategies and, for older apps, ``start_grid`` and the
``LegacyContext`` of a workflow, which holds its history.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from flwr.server import LegacyContext
from flwr.serverapp import server_app
from flwr.serverapp.strategy import Result, Strategy

# Metrics by round.
Rounds = dict[int, dict[str, Any]]


class Results:
    """What strategies returned, in the order in which they did."""

    def __init__(self) -> None:
        self.found: list[Result] = []
        self.histories: list[Any] = []

    def metrics(self) -> dict[str, Rounds]:
        """Metrics of the last strategy that ran, by phase and round.

        Returns:
            ``train``, ``evaluate_clients`` and ``evaluate_server``; all empty where no strategy ran.
        """
        if self.found:
            result = self.found[-1]
            return {
                "train": _plain(result.train_metrics_clientapp),
                "evaluate_clients": _plain(result.evaluate_metrics_clientapp),
                "evaluate_server": _plain(result.evaluate_metrics_serverapp),
            }
        metrics: dict[str, Rounds] = {"train": {}, "evaluate_clients": {}, "evaluate_server": {}}
        if self.histories:
            history = self.histories[-1]
            for phase, losses, named in (
                ("train", (), history.metrics_distributed_fit),
                ("evaluate_clients", history.losses_distributed, history.metrics_distributed),
                ("evaluate_server", history.losses_centralized, history.metrics_centralized),
            ):
                rounds = metrics[phase]
                for number, loss in losses:
                    rounds.setdefault(number, {})["loss"] = _number(loss)
                for name, values in named.items():
                    for number, value in values:
                        rounds.setdefault(number, {})[name] = _number(value)
        return metrics


@contextmanager
def results_of_strategies() -> Iterator[Results]:
    """Note what strategies return in this block; one that calls another's ``start`` counts once."""
    results = Results()
    running = 0

    def noting(start: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(start)
        def wrapped(*args: Any, **options: Any) -> Any:
            nonlocal running
            running += 1
            try:
                result = start(*args, **options)
            finally:
                running -= 1
            if running == 0 and isinstance(result, Result):
                results.found.append(result)
            return result

        return wrapped

    def older(**options: Any) -> Any:
        history = start_grid(**options)
        results.histories.append(history)
        return history

    def remembering(made: LegacyContext, /, *args: Any, **options: Any) -> None:
        begin(made, *args, **options)
        results.histories.append(made.history)

    start_grid = vars(server_app)["start_grid"]
    begin = vars(LegacyContext)["__init__"]
    with ExitStack() as stack:

        def replace(owner: Any, name: str, by: Callable[..., Any]) -> None:
            stack.callback(setattr, owner, name, vars(owner)[name])
            setattr(owner, name, by)

        replace(server_app, "start_grid", older)
        replace(LegacyContext, "__init__", remembering)
        for kind in _kinds(Strategy):
            if "start" in vars(kind):
                replace(kind, "start", noting(vars(kind)["start"]))
        yield results


def _kinds(kind: Any) -> list[Any]:
    """The class and its subclasses, each once."""
    children = [grandchild for child in kind.__subclasses__() for grandchild in _kinds(child)]
    return list(dict.fromkeys([kind, *children]))


def _plain(rounds: Mapping[int, Any]) -> Rounds:
    return {
        number: {name: _number(value) for name, value in record.items()} for number, record in rounds.items()
    }


def _number(value: Any) -> Any:
    """As JSON has it: numbers and lists of them; what is not finite is null there."""
    if isinstance(value, (list, tuple)):
        return [_number(item) for item in value]
    if isinstance(value, (bool, int, str)):
        return value
    number = float(value)
    return number if number - number == 0.0 else None
