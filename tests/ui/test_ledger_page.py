"""``--private``: the owner's ledger, to whoever has the printed key, and opened for reading alone."""

import hashlib
import re
import sqlite3

import pytest
from fixture_run import FixtureRun
from tiny_federation import config

import fedsafe
from fedsafe.privacy.chain import read_events


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("owner")
    fedsafe.run(config(), out=folder / "run")
    return folder


def cookie(page, key):
    answer = page.get(f"/?key={key}")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    said = answer.headers["set-cookie"]
    assert "HttpOnly" in said
    assert "SameSite=strict" in said
    return said.partition(";")[0]


def test_without_the_option_there_is_no_ledger(runs, serve):
    page = serve(runs)
    assert page.get("/ledger/run").status == 404
    assert "/ledger/" not in page.get("/run/run").text
    assert "set-cookie" not in page.get("/?key=").headers


def test_without_the_key_there_is_no_ledger(runs, serve):
    page = serve(runs, private_key="secret")
    head = read_events(runs / "run" / "private" / "ledger.sqlite")[-1].hash
    for headers in (
        {},
        {"Cookie": "fedsafe=secret"},
        {"Cookie": cookie(page, "secret").replace("secret", "other")},
    ):
        answer = page.get("/ledger/run", **headers)
        assert answer.status == 403
        assert head not in answer.text
    assert "set-cookie" not in page.get("/?key=wrong").headers
    # Another page's key is not this one's, even if the browser sends it along.
    other = serve(runs, private_key="another")
    assert other.get("/ledger/run", Cookie=cookie(page, "secret")).status == 403


def test_the_owner_sees_head_events_and_what_each_client_spent(runs, serve):
    page = serve(runs, private_key="secret")
    shown = {"Cookie": cookie(page, "secret")}
    path = runs / "run" / "private" / "ledger.sqlite"
    before = (
        hashlib.sha256(path.read_bytes()).hexdigest(),
        sorted(entry.name for entry in path.parent.iterdir()),
    )
    events = read_events(path)
    text = page.get("/ledger/run", **shown).text
    assert events[-1].hash in text
    for event in events:
        assert event.hash[:12] in text
    part = [event.body["cohort"] for event in events if event.kind == "round"]
    for client in range(12):
        count = sum(client in cohort for cohort in part)
        assert re.search(rf'<th scope="row">{client}</th>\s*<td>{count}</td>', text), client
    spent = page.get("/ledger/run?spends=true", **shown).text
    most = max(sum(client in cohort for cohort in part) for client in range(12))
    from fedsafe.privacy.plan import PrivacyPlan
    from fedsafe.report.formats import epsilon
    from fedsafe.runs.result import Run

    plan = PrivacyPlan.from_numbers(Run(runs / "run").start.plan)
    assert epsilon(plan.record_epsilon(3, most)) in spent
    after = (
        hashlib.sha256(path.read_bytes()).hexdigest(),
        sorted(entry.name for entry in path.parent.iterdir()),
    )
    assert after == before


def test_a_ledger_that_is_edited_missing_or_linked_is_said(tmp_path, runs, serve):
    import shutil

    shutil.copytree(runs / "run", tmp_path / "edited")
    with sqlite3.connect(tmp_path / "edited" / "private" / "ledger.sqlite") as database:
        database.execute("UPDATE event SET body = replace(body, 'cohort', 'c0hort') WHERE sequence = 2")
    database.close()
    shutil.copytree(runs / "run", tmp_path / "shared")
    shutil.rmtree(tmp_path / "shared" / "private")
    FixtureRun(rounds=3).build(tmp_path / "linked")
    (tmp_path / "linked" / "private" / "ledger.sqlite").symlink_to(runs / "run" / "private" / "ledger.sqlite")
    page = serve(tmp_path, private_key="secret")
    shown = {"Cookie": cookie(page, "secret")}
    assert "the chain of the ledger breaks at event 2" in page.get("/ledger/edited", **shown).text
    for name in ("shared", "linked"):
        answer = page.get(f"/ledger/{name}", **shown)
        assert answer.status == 200
        assert "No ledger to show" in answer.text
