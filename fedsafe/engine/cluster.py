"""Ray itself: one node started here, or a cluster that is joined, and what its workers may use."""

import logging
import os
import socket
from dataclasses import dataclass
from typing import Any, Literal

import ray

from fedsafe.engine.devices import Device, gpus_here, require_device
from fedsafe.engine.interrupts import interrupts_kept
from fedsafe.errors import ConfigError, EngineError

_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What each worker gets.

    Args:
        device: Where it computes, ``"cpu"`` or ``"cuda"``.
        gpus: Its part of a GPU; 0 on the CPU.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    gpus: float = 0.0


def start_ray(workers: int, address: str | None = None) -> bool:
    """Start a one-node Ray of ``workers`` processors, or join the one at ``address``.

    Whatever Ray this process is already connected to is used as it is.

    Args:
        workers: How many processors are needed.
        address: Of a Ray cluster, such as ``"10.0.0.1:6379"`` or ``"auto"``; None for a new Ray on this machine. The
            environment alone never decides: private records go to no cluster that the configuration does not name.

    Returns:
        Whether the connection was made here, and is the caller's to end.

    Raises:
        ConfigError: The address is none.
        EngineError: Nothing answers at the address, or there are fewer processors than workers, so that some would wait
            for ever.
    """
    if ray.is_initialized():
        _require_processors(workers, "the Ray that is running in this process", "stop it with ray.shutdown()")
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would give way to every other process of the machine, while the round waits for its workers.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if address is not None:
        _require_answer(address)
    options: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        with interrupts_kept():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except KeyboardInterrupt:
        if ray.is_initialized():
            ray.shutdown()
        raise
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address is None:
            raise
        raise _not_joined(address, error) from error
    if address is not None:
        try:
            _require_processors(workers, f"the cluster at {address}", "add nodes to it")
        except EngineError:
            ray.shutdown()
            raise
    return True


def _require_answer(address: str) -> None:
    """Somebody must listen there: Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdecimal()):
        raise ConfigError(f"engine.address = {address!r}: give 'host:port' of the cluster's head, or 'auto'")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _not_joined(address, error) from error


def _not_joined(address: str, error: Exception) -> EngineError:
    reason = " ".join(str(error).split())
    return EngineError(
        f"engine.address = {address!r}: no Ray cluster can be joined there ({reason[:160]}); start one with "
        "`ray start --head`, or leave the address out"
    )


def _require_processors(workers: int, where: str, remedy: str) -> None:
    found = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    if found < workers:
        raise EngineError(
            f"engine.workers = {workers}, but {where} has {found} processors: ask for fewer workers, or {remedy}"
        )


def stop_ray() -> None:
    """Stop the Ray that `start_ray` started, with its processes, or leave the cluster that it joined."""
    ray.shutdown()


def resources_for(device: Device, gpus: float | None, workers: int) -> Resources:
    """What each of ``workers`` workers of the Ray that is running gets.

    Args:
        device: ``"auto"`` takes a GPU where there is one.
        gpus: Part of a GPU for each worker; by default the GPUs are shared out evenly.
        workers: How many there are.

    Raises:
        ConfigError: CUDA is asked for where no GPU is, or part of a GPU on the CPU, or more than there is.
    """
    found = float(
        ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]
        if ray.is_initialized()
        else gpus_here()
    )
    if require_device(device, found) == "cpu":
        if gpus:
            raise ConfigError(
                f"engine.gpus = {gpus:g} on the CPU: leave it out, or set engine.device = 'cuda' where a GPU is"
            )
        return Resources()
    share = gpus if gpus is not None else min(1.0, found / workers)
    if share <= 0.0:
        raise ConfigError(
            f"engine.gpus = {share:g} with engine.device = 'cuda': give each worker a part of a GPU"
        )
    if share * workers > found + 1e-9:
        raise ConfigError(
            f"engine.gpus = {share:g} for each of {workers} workers is more than the {found:g} GPUs there are: "
            "lower engine.gpus or engine.workers"
        )
    return Resources(device="cuda", gpus=share)
