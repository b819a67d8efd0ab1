"""The ServerApp that Flower loads by name: the same run as ``fedsafe run``, over Flower's grid."""

import functools
from pathlib import Path

from flwr.app import Context
from flwr.common.config import get_project_dir
from flwr.serverapp import Grid, ServerApp

from fedsafe.apps.log import LOG, LogOfRun
from fedsafe.apps.nodes import connect
from fedsafe.apps.notes import RunNotes
from fedsafe.apps.peers import read_peer_keys
from fedsafe.apps.settings import read_settings
from fedsafe.report import write_report
from fedsafe.runs.resume import resume
from fedsafe.runs.run import run

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run configuration names, and leave a run folder."""

    def bundle() -> Path:
        found = grid.run
        return get_project_dir(found.fab_id, found.fab_version, found.fab_hash)

    settings = read_settings(context.run_config, bundle)
    notes = RunNotes(settings.out if settings.resume else None)
    join = functools.partial(
        connect,
        grid,
        run=notes.run,
        wait_for_nodes=settings.wait_for_nodes,
        wait_for_replies=settings.wait_for_replies,
        resumed=settings.resume,
        tell=notes.tell,
        peers=read_peer_keys(settings.peers) if settings.peers is not None else None,
    )
    if settings.resume and settings.out is not None:
        finished = resume(settings.out, callbacks=[LogOfRun(), notes], connect=join)
    else:
        finished = run(settings.config, out=settings.out, callbacks=[LogOfRun(), notes], connect=join)
    LOG.info("report: %s", write_report(finished.path).resolve())
