"""Nothing private is read or served, no link leads out, nothing is changed, and only hosts of ours are answered."""

import hashlib
import os
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from fixture_run import SECRET, FixtureRun

SECRETS = (SECRET, "OUTSIDE", "NOISE-KEY")
_OPENED: list[str] = []
_WATCHING = [False]


def _audit(event, args):
    if _WATCHING[0] and event in ("open", "os.listdir", "os.scandir", "sqlite3.connect"):
        _OPENED.append(str(args[0]))


sys.addaudithook(_audit)  # one for the whole process: a hook cannot be taken away


@pytest.fixture
def folder(tmp_path):
    """Runs, one with links to what must not be seen; what is private holds secrets."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "report.html").write_text("OUTSIDE")
    (tmp_path / "outside" / "record.jsonl").write_text("OUTSIDE")
    root = tmp_path / "root"
    run = FixtureRun(rounds=3, ended=None).build(root / "good")
    (run / "private" / "noise.key").write_text("NOISE-KEY")
    (run / "report.html").write_text("<p>a report</p>")
    evil = FixtureRun(rounds=3).build(root / "evil")
    (evil / "private" / "noise.key").write_text("NOISE-KEY")
    (evil / "private" / "byzantine.html").write_text("NOISE-KEY")
    (evil / "report.html").symlink_to("private/noise.key")
    (evil / "card.md").symlink_to(tmp_path / "outside" / "report.html")
    (evil / "requirements.jsonl").unlink(missing_ok=True)
    (evil / "requirements.jsonl").symlink_to("private/cohorts.jsonl")
    (evil / "byzantine").symlink_to("private")
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / "private").mkdir()
    (root / "private" / "record.jsonl").write_text(SECRET)
    (root / "private" / "config.toml").write_text(SECRET)
    os.mkfifo(evil / "findings.jsonl.fifo")
    return root


def _tricks():
    targets = (
        "private/noise.key",
        "private/cohorts.jsonl",
        "private/ledger.sqlite",
        "../outside/report.html",
    )
    for target in targets:
        for place in ("good/", "evil/", "good/../evil/"):
            plain = f"{place}{target}"
            for written in (
                plain,
                plain.replace("..", "%2e%2e"),
                plain.replace("/", "%2f"),
                plain.replace("/", "%5c"),
                plain.replace("private", "PRIVATE"),
                plain.replace("private", "priv%61te"),
                quote(quote(plain)),
                f"/{plain}",
                f"./{plain}",
                f"{plain}%00.html",
            ):
                for route in (
                    "files/",
                    "run/",
                    "csv/rounds/",
                    "comparison/",
                    "ledger/",
                    "live/details/",
                    "assets/",
                    "",
                ):
                    yield f"/{route}{written}"


def test_no_path_leads_to_what_is_private_or_outside(folder, serve):
    page = serve(folder)
    for path in dict.fromkeys(_tricks()):
        answer = page.get(path)
        assert answer.status in (400, 404), path
        assert not any(secret in answer.text for secret in SECRETS), path


def test_links_are_not_followed(folder, serve):
    page = serve(folder)
    assert page.get("/files/good/report.html").text == "<p>a report</p>"
    for name in ("report.html", "card.md", "requirements.jsonl", "byzantine/byzantine.html"):
        assert page.get(f"/files/evil/{name}").status == 404
    listing = page.get("/").text
    assert "good" in listing
    assert "/run/linked" not in listing
    assert "Left out: links to folders, and entries beyond 5,000 of one folder: 1." in listing
    assert page.get("/run/linked").status == 404
    details = page.get("/run/evil").text
    assert not any(secret in details for secret in SECRETS)


def test_nothing_private_is_opened(folder, serve):
    page = serve(folder)
    _OPENED.clear()
    _WATCHING[0] = True
    try:
        for path in ("/", "/live/runs", "/run/good", "/run/evil", "/live/details/good", "/csv/findings/good"):
            assert page.get(path).status == 200
        for name in ("record.jsonl", "report.html", "config.toml"):
            assert page.get(f"/files/good/{name}").status == 200
        assert page.get("/ledger/good").status == 404
    finally:
        _WATCHING[0] = False
    assert any("record.jsonl" in path for path in _OPENED), "the hook hears nothing"
    assert not [path for path in _OPENED if {"private", "noise.key", "lock"} & set(Path(path).parts)]


def _digest(folder: Path) -> str:
    parts = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        parts.update(f"{path} {about.st_mtime_ns} {about.st_size} {about.st_mode}".encode())
        if path.is_file() and not path.is_symlink():
            parts.update(path.read_bytes())
    return parts.hexdigest()


def test_no_route_changes_a_thing(folder, serve):
    page = serve(folder)
    before = _digest(folder)
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        for path in ("/", "/run/good", "/files/good/record.jsonl"):
            answer = page.get(path, method)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    for path in (
        "/",
        "/run/good",
        "/live/curves/good",
        "/csv/rounds/good",
        "/files/good/record.jsonl",
        "/comparison/good",
    ):
        page.get(path)
        head = page.get(path, "HEAD")
        assert head.body == b""
        assert head.status == page.get(path).status
    assert _digest(folder) == before


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:9", 200),
        ("LOCALHOST", 200),
        ("[::1]:80", 200),
        ("mine.example:8422", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1@evil.example", 400),
        ("127.0.0.1:80@evil.example", 400),
        ("10.9.8.7", 400),
        ("", 400),
    ],
)
def test_only_a_host_of_ours_is_answered(folder, serve, host, status):
    page = serve(folder, hosts=["mine.example"])
    answer = page.get("/run/good", host=host)
    assert answer.status == status
    if status == 400:
        assert "Host" in answer.text
        assert "adult" not in answer.text


def test_the_policy_lets_nothing_in(folder, serve):
    page = serve(folder)
    for path in ("/", "/run/good", "/nothing", "/run/%ff"):
        headers = page.get(path).headers
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    report = page.get("/files/good/report.html").headers["content-security-policy"]
    assert report.startswith("sandbox; default-src 'none'")
    assert "script" not in report
    record = page.get("/files/good/record.jsonl").headers
    assert record["content-disposition"] == 'attachment; filename="good-record.jsonl"'


def test_pages_ask_nothing_of_another_machine(folder, serve):
    page = serve(folder)
    for path in ("/", "/run/good", "/nothing", "/assets/live.js", "/assets/ui.css", "/assets/report.css"):
        text = page.get(path).text
        assert "http:" not in text.replace(page.url, "")
        assert "https:" not in text
        assert "//cdn" not in text
        assert "@import" not in text
