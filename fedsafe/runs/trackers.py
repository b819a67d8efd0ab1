"""Sinks for TensorBoard and MLflow: optional, and imported when a configuration asks for them."""

import importlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fedsafe.errors import ConfigError
from fedsafe.records import Json

# What MLflow takes in one call.
_METRICS_AT_ONCE, _PARAMS_AT_ONCE = 1000, 100


def tensorboard(folder: Path, *, path: str = "tensorboard") -> "TensorBoardSink":
    """Scalars for TensorBoard, in a folder of the run folder.

    Args:
        folder: The run folder.
        path: The log folder, relative to it. The names of TensorBoard's files hold the machine's name.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    return TensorBoardSink(folder / path)


def mlflow(folder: Path, *, experiment: str = "fedsafe", tracking_uri: str | None = None) -> "MlflowSink":
    """One MLflow run, sent when the run is complete.

    Args:
        folder: The run folder; its name is the name of MLflow's run.
        experiment: Name of the experiment, which is made where absent.
        tracking_uri: Where MLflow keeps runs, by default what its environment variables say. It is written to the
            run's ``config.toml``: leave passwords to the environment.

    Raises:
        ConfigError: MLflow is not installed.
    """
    return MlflowSink(experiment=experiment, tracking_uri=tracking_uri)


class TensorBoardSink:
    """Scalars of rounds and findings, and the claims as text.

    Every event bears the time of the run's start: when a round ended tells about its cohort.

    Args:
        path: The log folder.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, path: Path | str) -> None:
        self._module = _module("torch.utils.tensorboard", "tensorboard")
        self._path = Path(path)
        self._writer: Any = None
        self._time: float | None = None

    def write(self, event: Mapping[str, Any]) -> None:
        """Add an event's scalars."""
        if self._writer is None:
            # A resumed run is written whole: what an interrupted one left is hidden.
            self._writer = self._module.SummaryWriter(str(self._path), purge_step=0)
        if event["kind"] == "start":
            self._time = _seconds(event)
            for claim in event["claims"]:
                self._writer.add_text(
                    f"claim/{claim['unit']}", str(claim["statement"]), 0, walltime=self._time
                )
        for name, value in _scalars(event):
            self._writer.add_scalar(name, value, event["round"], walltime=self._time)
        if event["kind"] == "round":
            self._writer.flush()

    def close(self) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()


class MlflowSink:
    """Keeps the events, and sends them as one MLflow run at the end.

    A server that got each round as it ended would learn how long rounds take, which tells about secret cohorts: so
    all is sent at once, with the time of the run's start.

    Args:
        experiment: Name of the experiment.
        tracking_uri: Where MLflow keeps runs; None asks its environment.

    Raises:
        ConfigError: MLflow is not installed.
    """

    def __init__(self, *, experiment: str = "fedsafe", tracking_uri: str | None = None) -> None:
        self._module = _module("mlflow", "mlflow")
        self._experiment, self._uri = experiment, tracking_uri
        self._events: list[Json] = []

    def write(self, event: Mapping[str, Any]) -> None:
        """Keep an event."""
        self._events.append(dict(event))

    def close(self) -> None:
        """Send what was kept."""
        if not self._events:
            return
        entities = self._module.entities
        client = self._module.MlflowClient(tracking_uri=self._uri)
        start = self._events[0]
        moment = int(1000 * _seconds(start))
        found = client.get_experiment_by_name(self._experiment)
        experiment = client.create_experiment(self._experiment) if found is None else found.experiment_id
        run = client.create_run(experiment, start_time=moment, run_name=start["run"]).info.run_id
        params = [entities.Param(name, text) for name, text in _params(start)]
        metrics = [
            entities.Metric(name, value, moment, event["round"])
            for event in self._events
            for name, value in _scalars(event)
        ]
        for at in range(0, len(params), _PARAMS_AT_ONCE):
            client.log_batch(run, params=params[at : at + _PARAMS_AT_ONCE])
        for at in range(0, len(metrics), _METRICS_AT_ONCE):
            client.log_batch(run, metrics=metrics[at : at + _METRICS_AT_ONCE])
        for claim in start["claims"]:
            client.set_tag(run, f"claim.{claim['unit']}", str(claim["statement"]))
        client.set_terminated(run, end_time=moment)


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"The sink {package!r} needs a package that is not installed ({error}): pip install {package}, or take "
            "it out of `sinks`."
        ) from error


def _seconds(start: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(start["created"]).timestamp()


def _scalars(event: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of an event, each with a name that both trackers take."""
    if event["kind"] == "round":
        named = {f"round/{name}": value for name, value in event["metrics"].items()}
        named |= {f"planned_epsilon/{unit}": value for unit, value in event["spend"].items()}
    elif event["kind"] == "finding":
        # One slash only: a tracker that keeps files cannot have a name under another.
        where = "".join(f".{key}_{value}".replace("/", "_") for key, value in event["where"].items())
        name = event["metric"].replace(".", "/", 1) + where
        low, high = event["interval"] or (None, None)
        named = {name: event["value"], f"{name}.low": low, f"{name}.high": high}
    else:
        named = {}
    for name, value in named.items():
        if value is not None:
            yield re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII), float(value)


def _params(start: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("run", "revision", "seed", "reproducible", "trainer", "settings_sha256"):
        yield name, str(start[name])
    yield "task", str(start["task"].get("name"))
    yield "model", str(start["model"].get("name"))
    yield "parameters", str(start["model"].get("parameters"))
    yield "clients", str(start["federation"].get("clients"))
    yield "rounds", str(start["plan"].get("rounds"))
    for claim in start["claims"]:
        yield f"claim.{claim['unit']}.epsilon", str(claim["epsilon"])
        yield f"claim.{claim['unit']}.delta", str(claim["delta"])
