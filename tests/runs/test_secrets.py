"""No file outside ``private/`` contains or determines a cohort, a client's spend, or the key."""

import base64
import json
import stat

import pytest
from tiny_federation import config

from fedsafe.privacy.chain import read_events
from fedsafe.report import write_report
from fedsafe.runs.run import run

START = {
    "schema", "kind", "run", "created", "revision", "versions", "machine", "seed", "reproducible", "task",
    "model", "trainer", "federation", "claims", "matrix", "plan", "settings_sha256",
    "assessment",
}  # fmt: skip
ROUND = {
    "schema", "kind", "round", "metrics", "spend", "ledger", "checkpoint", "parameters_sha256", "accepted",
    "assess_every",
}  # fmt: skip
END = {"schema", "kind", "rounds", "seconds", "status", "reason", "accuracy", "accepted", "checkpoint"}
FINDING = {
    "round", "assessor", "metric", "where", "status", "value", "interval", "interval_method", "confidence", "n",
    "n_unit", "resolution", "bound", "anchors", "diagnostics", "data", "released", "detail",
}  # fmt: skip


VALUES = config(
    federation__clients=240,
    privacy__record__epsilon=0.1,
    assess__require=[{"metric": "performance.accuracy", "op": ">=", "threshold": 0.0}],
    sinks=["csv", "jsonl"],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of three rounds over 240 clients: cohorts whose sizes are no everyday numbers."""
    path = tmp_path_factory.mktemp("secrets") / "run"
    run(VALUES, out=path)
    write_report(path)
    return path


@pytest.fixture(scope="module")
def shared(folder):
    """Everything but ``private/``: what a copy to share holds."""
    files = [file for file in folder.rglob("*") if file.is_file() and "private" not in file.parts]
    names = {file.suffix for file in files}
    assert names == {".toml", ".jsonl", ".html", ".md", ".csv", ".safetensors"}
    return {file.relative_to(folder): file.read_bytes() for file in files}


def numbers_in(value):
    if isinstance(value, dict):
        for entry in value.values():
            yield from numbers_in(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from numbers_in(entry)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def lists_in(value):
    if isinstance(value, dict):
        for entry in value.values():
            yield from lists_in(entry)
    elif isinstance(value, list):
        yield value
        for entry in value:
            yield from lists_in(entry)


def json_lines(shared):
    for name, content in shared.items():
        if name.suffix == ".jsonl":
            for line in content.decode().splitlines():
                yield name.name, json.loads(line)


def test_private_is_for_the_owner_only(folder):
    assert stat.S_IMODE((folder / "private").stat().st_mode) == 0o700
    for name in ("noise.key", "ledger.sqlite"):
        assert stat.S_IMODE((folder / "private" / name).stat().st_mode) == 0o600


def test_the_key_is_nowhere_else_in_any_form(folder, shared):
    text = (folder / "private" / "noise.key").read_text().strip()
    key = bytes.fromhex(text)
    assert len(key) == 32
    forms = [text.encode(), text.upper().encode(), key, base64.b64encode(key)[:40], key[:8], key[::-1]]
    for name, content in shared.items():
        for form in forms:
            assert form not in content, name


def test_the_ledgers_salt_and_fingerprint_of_the_key_are_nowhere_else(folder, shared):
    opening = read_events(folder / "private" / "ledger.sqlite")[0].body
    for name, content in shared.items():
        assert opening["salt"].encode() not in content, name
        assert opening["key"].encode() not in content, name


def test_no_cohort_nor_its_size_is_anywhere_else(folder, shared):
    cohorts = [event.body["cohort"] for event in read_events(folder / "private" / "ledger.sqlite")[1:]]
    assert len(cohorts) == 3
    assert all(len(cohort) > 80 for cohort in cohorts)
    sizes = {len(cohort) for cohort in cohorts} - {
        60,
        120,
        240,
    }  # evaluation records, expected cohort, clients
    assert sizes
    for name, line in json_lines(shared):
        for values in lists_in(line):
            for cohort in cohorts:
                assert values[:5] != cohort[:5], name
        assert not sizes & set(numbers_in(line)), name
    for name, content in shared.items():
        for cohort in cohorts:
            for separator in (",", ", ", " "):
                assert separator.join(map(str, cohort[:6])).encode() not in content, name


def test_no_times_of_rounds_are_anywhere_else(folder, shared):
    timings = [json.loads(line) for line in (folder / "private" / "timings.jsonl").read_text().splitlines()]
    assert len(timings) == 3
    for line in timings:
        for name, content in shared.items():
            for key in ("seconds", "cpu_seconds", "elapsed"):
                assert str(line[key])[:8].encode() not in content, (name, key)


def test_record_lines_hold_exactly_what_is_documented(folder):
    lines = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["start", "round", "round", "round", "end"]
    for line in lines:
        assert set(line) == {"start": START, "round": ROUND, "end": END}[line["kind"]]
        if line["kind"] == "round":
            assert set(line["metrics"]) == {"accuracy", "loss"}
            assert set(line["spend"]) == {"record", "client"}
            assert set(line["ledger"]) == {"sequence", "head"}
    for line in (folder / "findings.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == FINDING


def test_what_is_fixed_before_round_1_is_the_same_for_every_key(folder, tmp_path):
    """Two keys, two cohorts, one start line: the record cannot tell them apart before the first model."""
    result = run(VALUES, out=tmp_path / "run")
    lines = [
        json.loads((path / "record.jsonl").read_text().splitlines()[0]) for path in (folder, result.path)
    ]
    for line in lines:
        line.pop("created")
        line.pop("revision")  # somebody may commit between the two
    assert lines[0] == lines[1]
    cohorts = [
        read_events(path / "private" / "ledger.sqlite")[1].body["cohort"] for path in (folder, result.path)
    ]
    assert cohorts[0] != cohorts[1]
