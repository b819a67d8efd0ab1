"""The routes of ``fedsafe ui``: each reads, none changes a thing."""

import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from fedsafe.errors import FedSafeError
from fedsafe.ui.axes import Picked, axes, on_panel, panels, pick, short_claim
from fedsafe.ui.contents import COMPARISON, GRID, RUN, Contents, inside
from fedsafe.ui.files import read_from
from fedsafe.ui.guard import FILE_POLICY, Guard
from fedsafe.ui.ledgers import read_ledger
from fedsafe.ui.pages import ASSETS, asset, curves_values, details_values, page
from fedsafe.ui.runs import WholeRun
from fedsafe.ui.tables import findings_csv, rounds_csv

_HTML, _TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"
_JSONL, _CSV = "application/x-ndjson", "text/csv; charset=utf-8"
_PARQUET = "application/vnd.apache.parquet"
# What can be had of each kind of folder, and as what; nothing else can.
FILES: Mapping[str, Mapping[str, str]] = {
    RUN: {
        "report.html": _HTML,
        "card.md": _TEXT,
        "record.jsonl": _JSONL,
        "findings.jsonl": _JSONL,
        "requirements.jsonl": _JSONL,
        "config.toml": _TEXT,
        "byzantine/byzantine.html": _HTML,
    },
    COMPARISON: {
        "comparison.html": _HTML,
        "comparison.json": "application/json",
        **{f"{name}.csv": _CSV for name in ("runs", "findings")},
        **{f"{name}.parquet": _PARQUET for name in ("runs", "findings")},
    },
    GRID: {
        "byzantine.html": _HTML,
        "grid.json": "application/json",
        "cells.csv": _CSV,
        "cells.parquet": _PARQUET,
    },
}
_SHOWN = ("card.md", *(name for kind in FILES.values() for name, media in kind.items() if media == _HTML))
_CHUNK = 1 << 18


def create_app(folder: Path, *, private_key: str | None = None, hosts: Sequence[str] = ()) -> FastAPI:
    """The application over a folder.

    Args:
        folder: That holds runs and comparisons, at most two levels down.
        private_key: Whoever shows it sees the ledgers; None where nobody does.
        hosts: Names that the page answers to beside those of this machine.

    Raises:
        RecordError: It is not a folder.
    """
    app = FastAPI(title="FedSafe", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, hosts=hosts)
    _add_pages(app, _Site(Contents(folder), private_key))
    return app


class _Site:
    """What the routes share."""

    def __init__(self, contents: Contents, private_key: str | None) -> None:
        self.contents = contents
        self.private = private_key is not None
        self._key = private_key or ""
        self._cookie = f"fedsafe-{secrets.token_hex(4)}"
        # Saving a figure sets options of matplotlib, which all threads see.
        self._drawing = threading.Lock()
        self._picked: dict[tuple[str, str, str, str, str], Picked] = {}

    def page(self, template: str, /, status: int = 200, **values: Any) -> Response:
        """A page with its frame."""
        frame = {"folder": self.contents.root.name or str(self.contents.root), "private": self.private}
        return HTMLResponse(page(template, **frame, **values), status_code=status)

    def missing(self, what: str) -> Response:
        """That something is not, or no longer, there."""
        return self.page(
            "nothing.html.j2", 404, title="Not here", said=f"{what}; it may have been moved or deleted."
        )

    def broken(self, error: Exception) -> Response:
        """That a page could not be made."""
        said = f"This page could not be made ({type(error).__name__}: {error}). The others can."
        return self.page("nothing.html.j2", 500, title="Not shown", said=said)

    def files(self, key: str, kind: str) -> dict[str, bool]:
        """Which files of a folder are there."""
        return {name: self.contents.has(inside(key, name)) for name in FILES[kind]}

    def admitted(self, request: Request) -> bool:
        """Whether a request shows the key that was printed."""
        return self.private and secrets.compare_digest(
            request.cookies.get(self._cookie, "").encode(), self._key.encode()
        )

    def admit(self, given: str) -> Response:
        """Remembers the key for as long as the browser is open, and leaves it out of the address."""
        answer = RedirectResponse("/", status_code=303)
        if self.private and secrets.compare_digest(given.encode(), self._key.encode()):
            answer.set_cookie(self._cookie, given, httponly=True, samesite="strict")
        return answer

    def picked(self, key: str, order: str, body: Mapping[str, Any], x: str, y: str, of: str) -> Picked:
        """The plot of two axes, drawn once."""
        place = (key, order, x, y, of)
        with self._drawing:
            if place not in self._picked:
                if len(self._picked) > 100:
                    self._picked.clear()
                self._picked[place] = pick(body, x, y)
            return self._picked[place]


def _add_pages(app: FastAPI, site: _Site) -> None:
    contents = site.contents

    @app.get("/")
    def listing(request: Request, key: str = "") -> Response:
        if key:
            return site.admit(key)
        return site.page("runs.html.j2", listing=contents.listing())

    @app.get("/live/runs")
    def live_listing(request: Request) -> Response:
        found = contents.listing()
        return _if_changed(request, repr(found), lambda: page("listing.html.j2", listing=found))

    @app.get("/run/{key:path}")
    def run_page(key: str) -> Response:
        run = contents.run(key)
        if run is None:
            return site.missing(f"There is no run {key!r} in this folder")
        values = {**curves_values(run), **details_values(run, site.files(key, RUN))}
        values["problems"] = list(dict.fromkeys([*curves_values(run)["problems"], *values["problems"]]))
        return site.page("run.html.j2", start=run.reading.start, **values)

    @app.get("/live/curves/{key:path}")
    def live_curves(request: Request, key: str) -> Response:
        run = contents.run(key)
        if run is None:
            return site.missing(f"There is no run {key!r} in this folder")
        return _if_changed(request, run.version, lambda: page("curves.html.j2", **curves_values(run)))

    @app.get("/live/details/{key:path}")
    def live_details(request: Request, key: str) -> Response:
        run = contents.run(key)
        if run is None:
            return site.missing(f"There is no run {key!r} in this folder")
        files = site.files(key, RUN)
        version = repr((_assessed(run), files))
        return _if_changed(
            request,
            version,
            lambda: page("details.html.j2", private=site.private, **details_values(run, files)),
        )

    @app.get("/comparison/{key:path}")
    def comparison_page(key: str, x: str = "epsilon", y: str = "", of: str = "") -> Response:
        found = contents.comparison(key)
        if found is None:
            return site.missing(f"There is no comparison {key!r} in this folder")
        values: dict[str, Any] = {"comparison": found, "files": site.files(key, COMPARISON), "picked": None}
        values |= {"claim": "", "claims": [], "horizontal": [], "vertical": [], "problem": found.problem}
        values |= {"panels": [], "of": of}
        if found.body:
            try:
                values |= {"panels": panels(found.body)}
                body = on_panel(found.body, of)
                horizontal, vertical = axes(body)
                values |= {"horizontal": horizontal, "vertical": vertical, "claims": body["axis"]}
                values |= {"claim": short_claim(body)}
                values |= {"picked": site.picked(key, repr(found.order), body, x, y, of)} if vertical else {}
            except Exception as error:  # whatever a file of somebody else makes of this
                values["problem"] = f"comparison.json cannot be shown ({type(error).__name__}: {error})"
        return site.page("comparison.html.j2", **values)

    @app.get("/csv/{table}/{key:path}")
    def table(table: str, key: str) -> Response:
        run = contents.run(key)
        makers = {"rounds": rounds_csv, "findings": findings_csv}
        if run is None or table not in makers:
            return site.missing(f"There is no such table of {key!r}")
        content = makers[table](run.reading)
        return Response(content, media_type=_CSV, headers=_download(run.row.name, f"{table}.csv"))

    @app.get("/files/{path:path}")
    def file(path: str) -> Response:
        return _file(site, path)

    @app.get("/ledger/{key:path}")
    def ledger(request: Request, key: str, spends: bool = False) -> Response:
        if not site.private:
            return site.missing(
                "Ledgers are private: `fedsafe ui --private` shows them to the owner of the runs"
            )
        if not site.admitted(request):
            said = "Open the address that `fedsafe ui --private` printed: it holds the key."
            return site.page("nothing.html.j2", 403, title="Only for the owner", said=said)
        run = contents.run(key)
        if run is None or run.reading.start is None:
            return site.missing(f"There is no run {key!r} in this folder that has begun")
        try:
            view = read_ledger(contents.root / key, run.reading.start, spends=spends)
        except FedSafeError as error:
            return site.page("nothing.html.j2", title="No ledger to show", said=str(error))
        return site.page("ledger.html.j2", row=run.row, ledger=view, spends=spends)

    @app.get("/assets/{name}")
    def assets(name: str) -> Response:
        if name not in ASSETS:
            return site.missing("There is no such file")
        media = "text/javascript" if name.endswith(".js") else "text/css"
        return Response(asset(name), media_type=f"{media}; charset=utf-8")

    @app.get("/{path:path}")
    def nothing(path: str) -> Response:
        return site.missing("There is no such page")

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> Response:
        return site.broken(error)


def _assessed(run: WholeRun) -> tuple[Any, ...]:
    """What the lower half of a run's page depends on: not the rounds between two assessments."""
    reading = run.reading
    counts = (len(reading.findings), len(reading.requirements), reading.start is None, reading.accepted)
    return (*counts, run.row.state, run.problems, reading.config)


def _if_changed(request: Request, version: str, make: Any) -> Response:
    """A part of a page, unless the browser has it."""
    tag = f'"{hashlib.sha256(version.encode("utf-8", "replace")).hexdigest()[:32]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"etag": tag})
    return HTMLResponse(make(), headers={"etag": tag})


def _file(site: _Site, path: str) -> Response:
    """A file of a folder that has a page, if it is one of those that can be had."""
    for kind, files in FILES.items():
        for name, media in files.items():
            if path != name and not path.endswith(f"/{name}"):
                continue
            key = path[: -len(name)].rstrip("/")
            if inside(key, name) != path or site.contents.kind(key) != kind:
                continue
            headers = {} if name in _SHOWN else _download(site.contents.name(key), name)
            if media == _HTML:
                headers["content-security-policy"] = FILE_POLICY
            return _stream(site, path, media, headers)
    return site.missing(f"There is no file {path!r} that can be had")


def _stream(site: _Site, path: str, media: str, headers: dict[str, str]) -> Response:
    files = site.contents.files
    stamp = files.stamp(path)
    if stamp is None:
        return site.missing(f"There is no file {path!r} that can be had")

    def content() -> Iterator[bytes]:
        # Opened anew for each piece: whoever goes away in the middle leaves nothing open. A file that grows meanwhile
        # is sent as it was, one that is replaced is cut short, which the browser sees.
        done = 0
        while done < stamp.size:
            with files.file(path) as descriptor:
                same = os.fstat(descriptor).st_ino == stamp.inode
                piece = read_from(descriptor, done, min(_CHUNK, stamp.size - done)) if same else b""
            if not piece:
                return
            done += len(piece)
            yield piece

    headers["content-length"] = str(stamp.size)
    return StreamingResponse(content(), media_type=media, headers=headers)


def _download(folder: str, name: str) -> dict[str, str]:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{folder}-{name}")
    return {"content-disposition": f'attachment; filename="{plain}"'}
