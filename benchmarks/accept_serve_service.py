"""The service under load, against wrong requests, and the suites in somebody else's pipeline.

    python benchmarks/accept_serve_service.py [SECONDS]

The server is a process of its own, and the load generator is this one, on the same two cores. SECONDS is how long the
load of twice what the service can hold lasts, 300 by default. Writes ``results/serve_service.json``.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as Xml

import httpx
from http_load import Load, drive, quantile_of, request
from lines import FEDSAFE, Lines, fedsafe, shown

from fedsafe.data import Numeric, load_task
from fedsafe.data.tables import read_table
from fedsafe.serve import read_log, verify_log
from fedsafe.serve.decision_log import audit_key
from fedsafe.serve.instances import Instances, WrongInstance

RATE, P99 = 1000, 50.0
CONNECTIONS, MANY = 32, 1000
EXPERIMENT = """
task = "adult"
model = { name = "mlp", hidden = [64] }
rounds = 6
[federation]
clients = 30
partition = { name = "iid" }
cohort = { name = "poisson", rate = 0.5 }
[client]
optimizer = { name = "sgd", lr = 1.0 }
steps = 10
rate = 0.1
[privacy.record]
epsilon = 8.0
[assess]
assessors = ["performance"]
[engine]
name = "inline"
"""


def instances() -> list[dict]:
    """Raw rows of Adult's test records; some have a country that the schema does not list, and are left out."""
    import fedsafe.data

    schema = load_task("adult").schema
    frame = read_table(Path(fedsafe.data.__file__).parent / "files" / "adult_48842.csv.xz").tail(8000)
    numbers = {column.name for column in schema.columns if isinstance(column, Numeric)}
    reader, rows = Instances(schema), []
    for record in frame.to_dict("records"):
        row = {
            column.name: float(record[column.name]) if column.name in numbers else record[column.name]
            for column in schema.columns
        }
        try:
            reader.encode([row])
        except WrongInstance:
            continue
        rows.append(row)
    return rows


class Served:
    """A service in a process of its own."""

    def __init__(self, run: Path, log: Path, *options: str) -> None:
        self.log = log
        self.command = ["serve", str(run), "--port", "0", "--log", str(log), "--note-flips", *options]
        self.process = subprocess.Popen(
            [*FEDSAFE, *self.command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        found = re.search(r":(\d+)/v1/predict", self.process.stdout.readline())
        if found is None:
            raise RuntimeError(f"the service did not begin: {self.process.stderr.read()}")
        self.port = int(found[1])

    def memory(self) -> float:
        """Resident megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def logged(self) -> int:
        """Decisions in the log, whose chain is checked."""
        verify_log(self.log, audit_key(self.log.with_name(f"{self.log.stem}.key")))
        return sum(line["kind"] == "decision" for line in read_log(self.log))


def told(load: Load) -> str:
    return (
        f"{load.rate():,.0f} answered in a second, p50 {load.milliseconds(0.5):.1f} ms, "
        f"p99 {load.milliseconds(0.99):.1f} ms; {dict(sorted(load.statuses.items()))}, {load.broken} connections broken"
    )


def holds(lines: Lines, run: Path, asked: list[bytes]) -> float:
    """1,000 single predictions a second; what the service can hold at most."""
    served = Served(run, lines.folder / "first.jsonl")
    drive("127.0.0.1", served.port, asked, connections=8, seconds=2)
    load = drive("127.0.0.1", served.port, asked, connections=CONNECTIONS, seconds=30, rate=RATE * 1.02)
    most = drive("127.0.0.1", served.port, asked, connections=CONNECTIONS, seconds=15)
    code = served.stop()
    met = load.rate() >= RATE and load.milliseconds(0.99) < P99 and set(load.statuses) == {200} and code == 0
    lines.add(
        "1,000 single tabular predictions a second with monitoring on, p99 under 50 ms",
        shown(*served.command),
        f"asked for {RATE * 1.02:,.0f}: {told(load)}. As fast as it can: {told(most)}",
        met=met,
    )
    return most.rate()


def overloaded(lines: Lines, run: Path, asked: list[bytes], most: float, seconds: float) -> None:
    """Twice what it can hold: sheds, keeps its memory, loses no line."""
    served = Served(run, lines.folder / "second.jsonl")
    memory, total, latencies = [], Counter(), []
    shed, broken = 0.0, 0
    parts = max(1, round(seconds / 30))
    for _ in range(parts):
        load = drive(
            "127.0.0.1", served.port, asked, connections=MANY, seconds=seconds / parts, rate=2 * most
        )
        memory.append(served.memory())
        total += load.statuses
        latencies.append(quantile_of(load.sent, 0.99))
        shed = max(shed, quantile_of(load.shed, 0.99))
        broken += load.broken
    code = served.stop()
    logged = served.logged()
    half = memory[len(memory) // 2]
    growth = memory[-1] - half
    met = (
        set(total) == {200, 429}
        and logged == total[200]
        and growth < 0.05 * half
        and broken == 0
        and code == 0
        and min(total.values()) > 0
    )
    lines.add(
        f"{seconds:g} seconds at twice the rate it can hold: sheds with 429, no growth of memory, no lost line",
        shown(*served.command),
        f"asked for {2 * most:,.0f} a second: {dict(sorted(total.items()))}, p99 of answers {max(latencies):.0f} ms, "
        f"of a 429 {shed:.0f} ms; {logged:,} decisions in the log, whose chain holds; "
        f"resident {', '.join(f'{m:.0f}' for m in memory)} MB; exit code {code}",
        met=met,
    )


def refused(lines: Lines, run: Path, row: dict) -> None:
    """Each wrong request gets its own 4xx."""
    keys = lines.folder / "keys"
    key = fedsafe("serve", "--keys", str(keys), "--new-key", "ours").stdout.strip()
    served = Served(run, lines.folder / "third.jsonl", "--keys", str(keys), "--rate", "300")
    bearer = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    right = json.dumps({"instances": [row]}).encode()
    wrong = {
        "right": (right, bearer, 200),
        "wrong JSON": (b'{"instances": [', bearer, 400),
        "NaN": (right.replace(b'"age": ', b'"age": NaN, "x": '), bearer, 400),
        "infinite number": (json.dumps({"instances": [{**row, "age": "inf"}]}).encode(), bearer, 422),
        "wrong shape": (b'{"instances": [[1, 2, 3]]}', bearer, 422),
        "missing column": (b'{"instances": [{"age": 3}]}', bearer, 422),
        "unknown category": (json.dumps({"instances": [{**row, "sex": "Mal"}]}).encode(), bearer, 422),
        "too many": (json.dumps({"instances": [row] * 257}).encode(), bearer, 422),
        "huge body": (b" " * (1 << 21), bearer, 413),
        "no JSON said": (right, {**bearer, "content-type": "text/plain"}, 415),
        "no key": (right, {"content-type": "application/json"}, 401),
        "bad key": (right, {**bearer, "authorization": "Bearer nonsense"}, 401),
    }
    found = {}
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}") as client:
        for name, (body, headers, _) in wrong.items():
            found[name] = client.post("/v1/predict", content=body, headers=headers).status_code
        for _ in range(2):
            many = json.dumps({"instances": [row] * 250}).encode()
            last = client.post("/v1/predict", content=many, headers=bearer)
        found["too fast"] = last.status_code
        # A declared length is enough to be refused.
        with socket.create_connection(("127.0.0.1", served.port)) as raw:
            head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
            raw.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {1 << 40}\r\n\r\n".encode())
            found["declared huge"] = int(raw.recv(200)[9:12])
    served.stop()
    expected = {
        **{name: status for name, (_, _, status) in wrong.items()},
        "too fast": 429,
        "declared huge": 413,
    }
    lines.add(
        "wrong JSON, wrong shape, NaN, huge bodies and bad keys each get the right 4xx",
        shown(*served.command),
        json.dumps(found),
        met=found == expected,
    )


def fuzzed(lines: Lines) -> None:
    """A fuzz of the OpenAPI document finds no 5xx."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/serve/test_service_fuzz.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    lines.add(
        "a fuzz of the OpenAPI schema finds no 5xx",
        "pytest tests/serve/test_service_fuzz.py",
        done.stdout.strip().splitlines()[-1],
        met=done.returncode == 0,
    )


def suites(lines: Lines, run: Path) -> None:
    """Every suite on a run of Adult, with an exit code and a file that agree."""
    told_, right = [], True
    for name in ("adversarial", "bias", "privacy", "alignment", "all"):
        file = lines.folder / f"{name}.xml"
        began = time.perf_counter()
        out = str(lines.folder / f"assessed-{name}")
        done = fedsafe(
            "assess",
            str(run),
            "--suite",
            name,
            "--tier",
            "cheap",
            "--junit",
            str(file),
            "--out",
            out,
            "--json",
        )
        listed = json.loads(done.stdout)["requirements"]
        blocks = any(line["blocks"] for line in listed)
        count = {
            kind: len(list(Xml.parse(file).iter(kind)))
            for kind in ("testcase", "failure", "error", "skipped")
        }
        right &= done.returncode == (3 if blocks else 0) and count["testcase"] == len(listed)
        told_.append(f"{name}: exit {done.returncode}, {count}, {time.perf_counter() - began:.0f} s")
    lines.add(
        "fedsafe assess RUN --suite adversarial|bias|privacy|alignment|all --junit FILE",
        shown("assess", "RUN", "--suite", "all", "--tier", "cheap", "--junit", "FILE"),
        "; ".join(told_),
        met=right,
    )


def guarded(lines: Lines, run: Path, rows: list[dict]) -> None:
    """The same over a file."""
    source, out, log = (lines.folder / name for name in ("in.jsonl", "out.jsonl", "file.jsonl"))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    began = time.perf_counter()
    command = ("guard", str(run), "--input", str(source), "--out", str(out), "--log", str(log), "--json")
    done = fedsafe(*command)
    seconds = time.perf_counter() - began
    printed = json.loads(done.stdout)
    verify_log(log, audit_key(log.with_name("file.key")))
    logged = sum(line["kind"] == "decision" for line in read_log(log))
    met = done.returncode == 0 and printed["rows"] == len(rows) == logged == len(out.read_text().splitlines())
    lines.add(
        "fedsafe guard runs the same over a file: one decision for each row, all in the log",
        shown(*command),
        f"{done.stdout.strip()}, {logged} decisions logged, {seconds:.0f} s",
        met=met,
    )


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300.0
    with tempfile.TemporaryDirectory() as name:
        lines = Lines(Path(name))
        run = lines.folder / "run"
        (lines.folder / "adult.toml").write_text(EXPERIMENT)
        trained = fedsafe("run", str(lines.folder / "adult.toml"), "--out", str(run))
        if trained.returncode:
            raise RuntimeError(trained.stderr)
        rows = instances()
        asked = [request("/v1/predict", json.dumps({"instances": [row]}).encode()) for row in rows]
        most = 2.0 * RATE
        with lines.section("the service holds its rate", "fedsafe serve"):
            most = holds(lines, run, asked)
        with lines.section("the service is overloaded", "fedsafe serve"):
            overloaded(lines, run, asked, most, seconds)
        with lines.section("the service refuses", "fedsafe serve"):
            refused(lines, run, rows[0])
        with lines.section("the service is fuzzed", "pytest"):
            fuzzed(lines)
        with lines.section("the suites judge", "fedsafe assess --suite"):
            suites(lines, run)
        with lines.section("a file is guarded", "fedsafe guard"):
            guarded(lines, run, rows)
        return lines.write("serve_service")


if __name__ == "__main__":
    sys.exit(main())
