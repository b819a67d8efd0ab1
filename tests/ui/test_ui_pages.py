"""The list and the page of a run: every state, hostile text as text, and a broken folder breaks its own row alone."""

import fcntl
import json
import os
import re
import shutil
import time

import fixture_comparison
import pytest
from fixture_run import FixtureRun

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&"
MARKUP = re.compile(r"<script(?! src=\"/assets/live.js\")|<img|onerror=alert\(2\)>|<b onclick", re.IGNORECASE)


def row_of(page, name):
    """The row of a run as words."""
    text = page.get("/").text
    rows = [row for row in re.findall(r"<tr>.*?</tr>", text, flags=re.DOTALL) if f">{name}</a>" in row]
    assert len(rows) == 1, text
    return " ".join(re.sub(r"<[^>]+>", " ", rows[0]).split())


def age(run, seconds):
    then = time.time() - seconds
    os.utime(run / "record.jsonl", (then, then))


def hold(run):
    descriptor = os.open(run / "private" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_every_state_is_told_in_words(tmp_path, serve):
    page = serve(tmp_path)
    FixtureRun().build(tmp_path / "done")
    FixtureRun(rounds=12, ended="stopped").build(tmp_path / "halted")
    spent = FixtureRun(rounds=30, ended="stopped").build(tmp_path / "spent")
    record = spent / "record.jsonl"
    said = (
        "the budget of privacy.client is spent after 30 of 40 rounds: one more would cost more than epsilon 8"
    )
    text = record.read_text()
    record.write_text(text.replace(json.loads(text.splitlines()[-1])["reason"], said))
    going = FixtureRun(rounds=7, ended=None).build(tmp_path / "going")
    age(going, 7200)
    held = hold(going)
    killed = FixtureRun(rounds=9, ended=None).build(tmp_path / "killed")
    os.close(hold(killed))
    copy = FixtureRun(rounds=5, ended=None).build(tmp_path / "copy")
    shutil.rmtree(copy / "private")
    assert "running" in row_of(page, "copy")
    age(copy, 7200)
    assert "✓ finished 40 of 40" in row_of(page, "done")
    assert "[" in row_of(page, "done")
    assert "2.999 at delta 1e-5, against the server and all other clients" in row_of(page, "done")
    assert "■ stopped" in row_of(page, "halted")
    assert "fairness.equalised_odds_difference" in row_of(page, "halted")
    assert "◆ budget spent" in row_of(page, "spent")
    assert "▶ running 7 of 40" in row_of(page, "going")
    assert "… interrupted" in row_of(page, "killed")
    assert "… interrupted" in row_of(page, "copy")
    listing = page.get("/").text
    assert listing.index(">going</a>") < min(listing.index(f">{name}</a>") for name in ("done", "killed"))
    os.close(held)
    assert "… interrupted" in row_of(page, "going")


def test_a_simulated_epsilon_is_called_one_wherever_it_stands(tmp_path, serve):
    record = FixtureRun().build(tmp_path / "seeded") / "record.jsonl"
    assert '"reproducible":false' in record.read_text()
    record.write_text(record.read_text().replace('"reproducible":false', '"reproducible":true'))
    settings = {**fixture_comparison.body()["settings"], "reproducible": True}
    fixture_comparison.build(tmp_path / "compared", settings=settings)
    page = serve(tmp_path)
    assert "simulated, no guarantee: at delta 1e-5" in row_of(page, "seeded")
    assert "3 seeds, simulated (no guarantee)" in row_of(page, "compared")


def test_a_run_without_a_guarantee_says_so(tmp_path, serve):
    FixtureRun(record_epsilon=None).build(tmp_path / "open")
    page = serve(tmp_path)
    assert "none no guarantee" in row_of(page, "open")
    assert "No record-level differential privacy is claimed" in page.get("/run/open").text


def test_hostile_text_stays_text(tmp_path, serve):
    run = FixtureRun(name=HOSTILE, rounds=10).build(tmp_path / 'x"onclick=<b>&')
    with (run / "findings.jsonl").open("a") as file:
        where = {"attribute": HOSTILE, "attack": HOSTILE}
        found = {
            "round": 10,
            "assessor": HOSTILE,
            "metric": HOSTILE,
            "where": where,
            "status": HOSTILE,
            "value": 1.0,
        }
        file.write(json.dumps({**found, "reason": "\ud800" + HOSTILE, "anchors": {HOSTILE: 0.5}}) + "\n")
        anchored = {
            "round": 10,
            "assessor": "x",
            "metric": "performance.accuracy",
            "status": "measured",
            "value": 0.8,
        }
        file.write(json.dumps({**anchored, "interval": [0.7, 0.9], "anchors": {HOSTILE: 0.8}}) + "\n")
    (run / "config.toml").write_text(f"# </pre>{HOSTILE}")
    fixture_comparison.build(tmp_path / "c", task=HOSTILE)
    page = serve(tmp_path)
    key = "x%22onclick%3D%3Cb%3E%26"
    for path in (
        "/",
        "/live/runs",
        f"/run/{key}",
        f"/live/curves/{key}",
        f"/live/details/{key}",
        "/comparison/c",
    ):
        answer = page.get(path)
        assert answer.status == 200, path
        assert not MARKUP.search(answer.text), path
        assert "&lt;script&gt;" in answer.text, path
    assert not MARKUP.search(page.get(f"/run/{key}%3Cscript%3E").text)
    csv = page.get(f"/csv/findings/{key}").text
    assert HOSTILE.replace('"', '""') in csv


def test_a_spreadsheet_is_given_no_formula(tmp_path, serve):
    run = FixtureRun(rounds=10).build(tmp_path / "run")
    with (run / "findings.jsonl").open("a") as file:
        file.write(json.dumps({"round": 1, "metric": "=1+1", "reason": "@SUM(A1)", "value": -1.5}) + "\n")
    lines = serve(tmp_path).get("/csv/findings/run").text
    assert "'=1+1" in lines
    assert "'@SUM(A1)" in lines
    assert ",-1.5," in lines


BROKEN = {
    "newer": lambda run: _edit(run, "fedsafe.record/1", "fedsafe.record/99"),
    "half a line": lambda run: _append(run, '{"schema":"fedsafe.record/1","kind":"rou'),
    "no json": lambda run: _append(run, "not json\n"),
    "an array": lambda run: _append(run, "[1, 2]\n"),
    "unknown kind": lambda run: _append(run, '{"schema":"fedsafe.record/1","kind":"elsewhere"}\n'),
    "round as text": lambda run: _edit(run, '"round":2,', '"round":"two",'),
    "metrics as text": lambda run: _edit(run, '"metrics":{', '"metrics":"no","was":{'),
    "a metric as text": lambda run: _edit(
        run, '"accuracy":0', '"accuracy":"0'.replace('"0', '"high","was":0')
    ),
    "task as text": lambda run: _edit(run, '"task":{', '"task":"x","was":{'),
    "plan as list": lambda run: _edit(run, '"plan":{', '"plan":[],"was":{'),
    "claims as text": lambda run: _edit(run, '"claims":[', '"claims":["x"],"was":['),
    "claims half made": lambda run: _edit(run, '"delta":1e-05', '"delta":"small"'),
    "huge rounds": lambda run: _edit(run, '"rounds":40', f'"rounds":{10**40}'),
    "endless number": lambda run: _edit(run, '"loss":0', '"loss":1e999,"was":0'),
    "no config": lambda run: (run / "config.toml").unlink(),
    "config in bytes": lambda run: (run / "config.toml").write_bytes(b"\xff\xfe"),
    "no record": lambda run: (run / "record.jsonl").unlink(),
    "an empty record": lambda run: (run / "record.jsonl").write_text(""),
    "a record in bytes": lambda run: (run / "record.jsonl").write_bytes(b"\xff\xfe\n"),
    "a folder as record": lambda run: ((run / "record.jsonl").unlink(), (run / "record.jsonl").mkdir()),
    "a pipe as record": lambda run: ((run / "record.jsonl").unlink(), os.mkfifo(run / "record.jsonl")),
    "a finding as list": lambda run: _append(run, "[]\n", "findings.jsonl"),
    "a finding of nothing": lambda run: _append(
        run, '{"round":3,"metric":"performance.accuracy"}\n', "findings.jsonl"
    ),
    "odd findings": lambda run: _append(
        run,
        '{"round":3,"metric":"performance.accuracy","interval":"x","value":"y","where":3}\n',
        "findings.jsonl",
    ),
    "odd verdicts": lambda run: _append(run, '{"round":3,"metric":"x","verdict":7}\n', "requirements.jsonl"),
}


def _edit(run, old, new):
    path = run / "record.jsonl"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _append(run, text, name="record.jsonl"):
    with (run / name).open("a") as file:
        file.write(text)


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_run_breaks_its_own_row_alone(tmp_path, serve, how):
    FixtureRun(rounds=3).build(tmp_path / "good")
    broken = FixtureRun(rounds=3, ended=None).build(tmp_path / "broken")
    BROKEN[how](broken)
    if (broken / "record.jsonl").is_file():
        age(broken, 7200)
    page = serve(tmp_path)
    assert "✓ finished" in row_of(page, "good")
    for path in ("/", "/run/good", "/live/runs"):
        assert page.get(path).status == 200
    for path in ("/run/broken", "/live/curves/broken", "/live/details/broken", "/csv/rounds/broken"):
        assert page.get(path).status == 200, path
    said = {
        "newer": "written by fedsafe 0.1.0 with schema 'fedsafe.record/99', this fedsafe reads 'fedsafe.record/1'",
        "half a line": "ends in half a line",
        "no json": "line 5: ",
        "metrics as text": "metrics = 'no'",
        "no config": "config.toml is missing",
        "no record": "interrupted",
        "an empty record": "interrupted",
    }
    if how in said:
        assert said[how] in row_of(page, "broken").replace("&#39;", "'")


def test_a_run_deleted_under_the_page_is_missed_and_no_more(tmp_path, serve):
    run = FixtureRun(rounds=3).build(tmp_path / "gone")
    FixtureRun(rounds=3).build(tmp_path / "stays")
    page = serve(tmp_path)
    assert page.get("/run/gone").status == 200
    (run / "findings.jsonl").unlink(missing_ok=True)
    assert page.get("/run/gone").status == 200
    shutil.rmtree(run)
    assert page.get("/run/gone").status == 404
    assert page.get("/live/curves/gone").status == 404
    assert page.get("/files/gone/record.jsonl").status == 404
    listing = page.get("/").text
    assert "gone" not in listing
    assert "stays" in listing


def test_a_part_is_sent_again_only_if_it_changed(tmp_path, serve):
    run = FixtureRun(rounds=3, ended=None).build(tmp_path / "run")
    page = serve(tmp_path)
    for path in ("/live/runs", "/live/curves/run", "/live/details/run"):
        first = page.get(path)
        assert first.status == 200
        assert page.get(path, If_None_Match=first.headers["etag"]).status == 304
    tags = {path: page.get(path).headers["etag"] for path in ("/live/curves/run", "/live/details/run")}
    line = (run / "record.jsonl").read_text().splitlines()[-1].replace('"round":3', '"round":4')
    _append(run, line + "\n")
    curves = page.get("/live/curves/run", If_None_Match=tags["/live/curves/run"])
    assert curves.status == 200
    assert "after round 4" in curves.text
    # Nothing was assessed: the scorecard stays as the reader left it.
    assert page.get("/live/details/run", If_None_Match=tags["/live/details/run"]).status == 304


def test_the_page_of_a_run_has_all_of_it(tmp_path, serve):
    run = FixtureRun().build(tmp_path / "run")
    for name in ("report.html", "card.md"):
        (run / name).write_text(name)
    (run / "byzantine").mkdir()
    (run / "byzantine" / "byzantine.html").write_text("under attack")
    page = serve(tmp_path)
    text = page.get("/run/run").text
    for words in (
        "accuracy, %; higher is better",
        "loss; lower is better",
        "epsilon spent for one record; lower protects more",
        "round, up to the planned 40",
        "At the record level, the run is (2.999, 1e-05)-differentially private",
        "persons with records in several clients",
        "Model to release",
        "Equalised odds",
    ):
        assert words in text, words
    for link in re.findall(r'href="(/[^"#?]*)', text):
        assert page.get(link).status == 200, link
    assert "/files/run/byzantine/byzantine.html" in text
    assert "ledger" not in text
    rounds = page.get("/csv/rounds/run").text.splitlines()
    assert rounds[0] == "round,accuracy,loss,epsilon_record,epsilon_client,accepted"
    assert len(rounds) == 41
    record = page.get("/files/run/record.jsonl")
    assert record.body == (run / "record.jsonl").read_bytes()
    assert record.headers["content-length"] == str(len(record.body))


def test_the_folder_may_be_a_run_itself_or_hold_folders_of_runs(tmp_path, serve):
    run = FixtureRun(rounds=3).build(tmp_path / "a" / "b" / "run")
    alone = serve(run)
    assert alone.get("/run/").status == 200
    assert alone.get("/files/record.jsonl").body == (run / "record.jsonl").read_bytes()
    assert "✓ finished" in row_of(alone, "run")
    assert "/run/b/run" in serve(tmp_path / "a").get("/").text
    assert "No run is here yet" in serve(tmp_path).get("/").text


def test_a_hundred_runs_are_read_once(tmp_path, serve, monkeypatch):
    import fedsafe.ui.growing

    first = FixtureRun(rounds=40).build(tmp_path / "0")
    for number in range(1, 100):
        shutil.copytree(first, tmp_path / str(number))
    page = serve(tmp_path)
    read = []
    real = fedsafe.ui.growing.read_from
    monkeypatch.setattr(fedsafe.ui.growing, "read_from", lambda *given: read.append(given) or real(*given))
    assert page.get("/").text.count("✓") == 100
    assert len(read) == 100
    page.get("/")
    assert len(read) == 100
