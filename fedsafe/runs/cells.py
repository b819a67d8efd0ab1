"""The cells of a grid of runs: each result is kept under what decides it, so that an interrupted grid goes on.

A cell is a resolved configuration. Its result is a file of its own, written at once and whole, named by a digest of the
configuration, of the code that a result depends on and of the packages under it: a second grid over the same cells, or
the same grid after an interruption, computes what is missing and nothing else.
"""

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from fedsafe.errors import EngineError, RecordError
from fedsafe.extensions import search, searched
from fedsafe.records import to_plain
from fedsafe.runs.config import Config
from fedsafe.runs.start import package_versions
from fedsafe.store.files import replace_file

Result = dict[str, Any]
# Computes the results of some cells: their positions, and what was found of each. A function of a module.
Work = Callable[[Sequence[Config]], Iterator[tuple[int, Result]]]

# Nothing in these changes what a run finds.
_NOT_RESULTS = ("apps", "cli", "report", "verify")
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$", flags=re.ASCII)


class CellStore:
    """Results of cells in a folder, ``cells/DIGEST.json``.

    Args:
        folder: It is made if it is not there.
        work: Names what computes the results; another work has other results.
        code: Digest of the code; by default that of this package.

    Raises:
        RecordError: The folder cannot be made.
    """

    def __init__(self, folder: Path, *, work: str, code: str | None = None) -> None:
        self._folder = folder / "cells"
        self._work = work
        self._code = code_digest() if code is None else code
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(
                f"{self._folder} cannot be made: {error.strerror}; choose another folder"
            ) from error

    def key(self, config: Config) -> str:
        """What decides a cell's result, as a digest."""
        described = json.dumps([self._work, self._code, config.digest, *named_code(config)])
        return hashlib.sha256(described.encode()).hexdigest()

    def read(self, key: str) -> Result | None:
        """A result; None where it is not there, or not whole."""
        try:
            line = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        found = line.get("result") if isinstance(line, dict) and line.get("key") == key else None
        return found if isinstance(found, dict) else None

    def others(self, keys: Sequence[str]) -> int:
        """How many more results the folder keeps: of other settings, or of another version."""
        return len({path.stem for path in self._folder.glob("*.json")} - set(keys))

    def write(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a result: from here on the cell is never computed again."""
        content = json.dumps({"key": key, "result": to_plain(dict(result))}, allow_nan=False)
        replace_file(self._folder / f"{key}.json", content.encode())


def compute_cells(
    configs: Sequence[Config],
    work: Work,
    store: CellStore,
    *,
    workers: int = 1,
    stack: int = 12,
    alike: Callable[[Config], str] = lambda config: "",
    order: Callable[[Config], int] = lambda config: 0,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> list[Result]:
    """The results of cells, computed where they are not kept already.

    Args:
        configs: One for each cell; equal ones are computed once.
        work: Computes some of them together.
        store: Keeps the results.
        workers: Processes; with one, the work is done here.
        stack: Cells that one call of ``work`` gets at most: what an interruption loses, for each worker.
        alike: Cells that give the same text are computed together where that is possible.
        order: Of cells that are alike: those that share a partition, for one, are composed once where they are near.
        on_done: Told how many of the different cells are there, and how many there are.

    Returns:
        A result for each configuration.

    Raises:
        FedSafeError: A cell failed. What was computed before is kept.
        EngineError: A worker was lost.
    """
    keys = [store.key(config) for config in configs]
    cells = dict(zip(keys, configs, strict=True))
    found = {key: result for key in cells if (result := store.read(key)) is not None}
    on_done(len(found), len(cells))
    missing = sorted(
        (key for key in cells if key not in found),
        key=lambda key: (alike(cells[key]), order(cells[key]), key),
    )
    batches = _batches(missing, [alike(cells[key]) for key in missing], stack, workers)
    if workers == 1 or len(batches) < 2:
        for batch in batches:
            for key, result in _computed(work, store, batch, [cells[key] for key in batch]):
                found[key] = result
                on_done(len(found), len(cells))
    else:
        for done in _in_processes(work, store, batches, cells, workers):
            for key in done:
                result = store.read(key)
                if result is None:
                    raise RecordError(
                        f"the result of cell {key[:12]} is gone: somebody else writes to the folder; ask again"
                    )
                found[key] = result
            on_done(len(found), len(cells))
    return [found[key] for key in keys]


def _batches(keys: Sequence[str], alike: Sequence[str], stack: int, workers: int) -> list[list[str]]:
    """Keys in their order, so many at a time and never across a border; small enough for every worker to have some."""
    most = max(1, min(stack, -(-len(keys) // max(1, workers))))
    if len(set(alike)) == 1:
        # As many for each worker, and of one size: the last one should not work alone.
        many = -(-len(keys) // most)
        most = -(-len(keys) // (-(-many // max(1, workers)) * max(1, workers)))
    batches: list[list[str]] = []
    last = None
    for key, kind in zip(keys, alike, strict=True):
        if kind != last or len(batches[-1]) >= most:
            batches.append([])
        batches[-1].append(key)
        last = kind
    return batches


def _computed(
    work: Work, store: CellStore, keys: Sequence[str], configs: Sequence[Config]
) -> Iterator[tuple[str, Result]]:
    for number, result in work(configs):
        store.write(keys[number], result)
        yield keys[number], to_plain(result)


def _in_processes(
    work: Work, store: CellStore, batches: Sequence[list[str]], cells: Mapping[str, Config], workers: int
) -> Iterator[list[str]]:
    """Keys of batches as they are done."""
    # Not forked: threads of torch and Ray do not survive that.
    context = multiprocessing.get_context("spawn")
    # A worker ends where the other end is closed, as it is when this process is killed. No lock is shared, which a
    # worker that dies could hold.
    heard, alive = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        max_workers=min(workers, len(batches)),
        mp_context=context,
        initializer=_begin,
        initargs=(searched(), heard),
    )
    try:
        waiting = {
            pool.submit(_batch, work, store, keys, [cells[key] for key in keys]): keys for keys in batches
        }
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                yield waiting.pop(future)
    except BaseException as error:
        # Nobody waits for cells in flight: Ctrl-C ends at once.
        alive.close()
        if not isinstance(error, BrokenProcessPool):
            raise
        raise EngineError(
            "a worker process was lost, perhaps for want of memory: lower the number of workers or of cells in a "
            "stack, and ask again; what was computed is kept"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        alive.close()
        heard.close()


def _begin(folders: Sequence[str], heard: Connection) -> None:
    """In a worker: find the user's modules, and end with whoever asked."""
    # The parent hears Ctrl-C, and says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    search(folders)

    def watch() -> None:
        heard.poll(None)  # nothing is ever sent: it is the end
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _batch(work: Work, store: CellStore, keys: Sequence[str], configs: Sequence[Config]) -> None:
    for _ in _computed(work, store, keys, configs):
        pass


def named_code(config: Config) -> list[str]:
    """Digests of the modules of the user's own that a configuration names; what is installed has a version."""
    texts = _texts(config.model_dump(exclude_none=True))
    found = {_module_digest(text.partition(":")[0]) for text in texts if _IMPORT_PATH.match(text)}
    return sorted(found - {""})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, Sequence):
        for one in value:
            yield from _texts(one)


@functools.cache
def _module_digest(name: str) -> str:
    """Of a module's file in a folder that the user's modules are looked up in; "" of any other.

    A process imports a module once, so that its digest stays what it was then.
    """
    first, *rest = name.split(".")
    for folder in map(Path, searched()):
        paths = (
            folder.joinpath(first, *rest).with_suffix(".py"),
            folder.joinpath(first, *rest, "__init__.py"),
        )
        for path in paths:
            with contextlib.suppress(OSError):
                return hashlib.sha256(f"{name};".encode() + path.read_bytes()).hexdigest()
    return ""


@functools.cache
def code_digest() -> str:
    """Of the source of this package that a result can depend on, and of the versions of what it runs on."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(json.dumps(package_versions(), sort_keys=True).encode())
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if inside.parts[0] not in _NOT_RESULTS:
            digest.update(f"{inside.as_posix()};".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
