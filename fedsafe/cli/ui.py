"""``fedsafe ui [FOLDER]``: watch runs and browse comparisons in a browser; nothing is changed."""

import sys
from pathlib import Path
from typing import Annotated

import typer

_INTERRUPTED = 130


def ui_command(
    folder: Annotated[
        Path,
        typer.Argument(help="That holds runs and comparisons; this folder if left out.", metavar="[FOLDER]"),
    ] = Path(),
    host: Annotated[
        str, typer.Option(metavar="H", help="Listen here; by default only this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Listen at this port; 0 for a free one.")] = 8422,
    private: Annotated[
        bool, typer.Option("--private", help="Show the ledgers too, to whoever has the printed address.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
) -> None:
    """Show the runs, comparisons and grids under a folder as a local page, with the curves of what is training.

    The page only reads, asks nothing of another machine, and shows nothing that is private without --private.
    """
    from fedsafe.ui import serve

    def told(address: str) -> None:
        typer.echo(f"{folder.resolve()}: {address}   (Ctrl-C ends it)")
        sys.stdout.flush()
        if open_:
            import webbrowser

            webbrowser.open(address)

    try:
        serve(folder, host=host, port=port, private=private, on_address=told)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
