"""``fedsafe report RUN``: write the page and the card of a run again, from its record alone."""

from pathlib import Path
from typing import Annotated

import typer


def report_command(run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]) -> None:
    """Write RUN/report.html and RUN/card.md from the run record, and print the path of the page."""
    from fedsafe.report import write_report

    typer.echo(write_report(run))
