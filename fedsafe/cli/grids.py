"""What the commands that train many runs share: their folder, how they count and are interrupted, and how they end."""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import typer

from fedsafe.errors import ConfigError

_INTERRUPTED = 130


class Kept:
    """Counts runs that are done, and says so on one line.

    Args:
        say: Where.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.done, self.of = 0, 0

    def __call__(self, done: int, of: int) -> None:
        """So many are done, of so many."""
        self.done, self.of = done, of
        self._say(f"\r{done} of {of} runs")

    def end(self) -> None:
        """No more."""
        if self.of:
            self._say("\n")


@contextmanager
def training(folder: Path, *, as_json: bool) -> Iterator[Kept]:
    """Around everything that trains: what it prints is no part of the result, and Ctrl-C ends it in one line.

    Args:
        folder: Where runs are kept.
        as_json: Whether nothing but one object is to be printed.
    """
    kept = Kept(_silent if as_json else _say)
    with redirect_stdout(sys.stderr):
        try:
            yield kept
        except KeyboardInterrupt:
            kept.end()
            computed = f"{kept.done} of {kept.of} runs or more are" if kept.of else "what was computed is"
            sys.stderr.write(f"interrupted: {computed} kept in {folder}; the same command goes on\n")
            sys.stderr.flush()
            # Workers end with this process; what the libraries do at exit takes seconds that nobody has who pressed it.
            os._exit(_INTERRUPTED)
        kept.end()


def output_folder(out: Path | None, command: str, config: Path | None) -> Path:
    """Where runs and page go: what ``--out`` names, or ``COMMAND/CONFIG``.

    Raises:
        ConfigError: It is a file.
    """
    folder = out if out is not None else Path(command) / (config.stem if config else "default")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder} is a file: name a folder")
    return folder


def require_counts(**options: int | None) -> None:
    """Refuse what is no whole number from 1.

    Raises:
        ConfigError: Naming the option.
    """
    for option, number in options.items():
        if number is not None and number < 1:
            raise ConfigError(f"--{option} {number}: give a whole number from 1")


def names(option: str, text: str | None) -> list[str] | None:
    """What commas separate; None where the option is left out.

    Raises:
        ConfigError: There is nothing between them.
    """
    if text is None:
        return None
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise ConfigError(f"{option} {text!r} names nothing: give names with commas between them")
    return found


def processes(workers: int | None) -> int:
    """So many, or one for each processor."""
    return os.cpu_count() or 1 if workers is None else workers


def command_line() -> str:
    """The command as it was given, for a page."""
    return shlex.join(["fedsafe", *sys.argv[1:]])


def finish(
    body: Mapping[str, Any], page: Path, began: float, *, as_json: bool, show: Callable[[float], None]
) -> None:
    """Print the one object, or what a person reads.

    Args:
        body: What was found.
        page: Its page.
        began: When, by ``time.perf_counter``.
        as_json: Which of the two.
        show: For a person; gets the seconds.
    """
    seconds = time.perf_counter() - began
    if as_json:
        typer.echo(
            json.dumps({**body, "seconds": seconds, "page": str(page), "exit_status": 0}, allow_nan=False)
        )
        return
    show(seconds)
    typer.echo(f"written  {page}")


def _say(text: str) -> None:
    """To a terminal, if there is one."""
    if sys.stderr.isatty():
        sys.stderr.write(text)
        sys.stderr.flush()


def _silent(text: str) -> None:
    """Nothing."""
