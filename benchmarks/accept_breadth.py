"""The full lines of breadth: every experiment, Flower's runtimes, extension; writes ``results/breadth.json``.

Needs the real data in ``FEDSAFE_DATA_DIR``, or a network. Every line is measured here; a line that falls short is
printed as such, and the exit code is 1. With the argument ``flower`` only Flower's runtimes are run, and their lines
replaced; with ``experiments`` only the table of ``experiments/README.md`` is written, from what the commands print.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from flower_runtimes import EXPERIMENT as FLOWER
from flower_runtimes import compare_runtimes
from lines import ROOT, Lines, fedsafe, shown, train

EXPERIMENTS = (
    "adult", "digits", "breast-cancer", "mnist-writers", "heart", "acs-states", "parkinsons", "shakespeare",
)  # fmt: skip
TABLE = ROOT / "experiments" / "README.md"
SECONDS = 180.0
FRESH = 2
OFF = ("--set", "privacy.client.epsilon=inf")
MNIST_RECORD = (
    *OFF, "--set", "rounds=40", "--set", "privacy.record={epsilon=3.0,delta=1e-5,clip=0.3}",
    "--set", "client.steps=1", "--set", "client.optimizer.lr=60",
    "--set", 'server.optimizer={name="sgd",lr=1.0,momentum=0.8}',
)  # fmt: skip
MNIST_NONE = (
    *OFF, "--set", "rounds=60", "--set", "client.steps=8", "--set", "client.optimizer.lr=20",
    "--set", 'server.optimizer={name="sgd",lr=1.0,momentum=0.9}',
)  # fmt: skip
# One suite for each protocol; each takes its cases from the registry of what is there.
CONTRACTS = {
    "aggregators": "tests/aggregation/test_contract.py",
    "trainers": "tests/client/test_trainer_contract.py",
    "grids": "tests/engine/test_grid_contract.py",
    "assessors": "tests/assess/test_assessor_contract.py",
    "partitions": "tests/data/test_partition_contract.py",
    "tasks": "tests/data/test_task_contract.py",
}
FLOWER_LINES = (
    "flwr run . and two SuperNodes train to within the seeds' spread of fedsafe run",
    "nothing is left running",
    "the client process used the installed package and its data",
)
ORACLES = "tests/client/test_stacked_against_a_loop.py"


def printed(name: str, out: Path) -> tuple[dict[str, str], float]:
    """The cells of an experiment's row, from what ``fedsafe run`` prints, and the seconds it took."""
    import time

    began = time.perf_counter()
    done = fedsafe("run", f"experiments/{name}.toml", "--reproducible", "--out", str(out))
    seconds = time.perf_counter() - began
    if done.returncode not in (0, 3):
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()}")
    closing = done.stdout[done.stdout.index("result\n") :].splitlines()[1:]
    cells = {}
    for line in closing:
        words = re.split(r"\s{2,}", line.strip())
        if len(words) < 2:
            continue
        if words[0] in ("accuracy", "R²"):
            interval = re.search(r"\[[^]]*\]", line)
            value = words[1] if "[" not in words[1] else words[1][: words[1].index("[")].strip()
            cells["figure"] = f"{words[0]} {value} {interval.group() if interval else ''}".strip()
        for unit in ("record", "client"):
            if words[0] == f"epsilon per {unit}":
                delta = re.search(r"delta = ([^,]+)", line)
                cells[unit] = f"{words[1]} at {delta.group(1)}" if delta else words[1].split()[0]
    return cells, seconds


def row(name: str, cells: dict[str, str], about: dict[str, Any]) -> str:
    clients = f"{about['clients']}, {about['partition']}"
    return (
        f"| `{name}.toml` | {about['kind']}, {about['model']} | {clients} | {cells['record']} | {cells['client']} "
        f"| {cells['figure']} |"
    )


def about(out: Path) -> dict[str, Any]:
    start = json.loads((out / "record.jsonl").read_text().splitlines()[0])
    partition = start["federation"]["partition"]
    by = f" by {partition['by']}" if "by" in partition else ""
    return {
        "kind": start["task"]["kind"].replace("_", " "),
        "model": f"{start['model']['name']} ({start['model']['parameters']:,})",
        "clients": start["federation"]["clients"],
        "partition": f"{partition['name']}{by}",
    }


def experiments(lines: Lines, folder: Path) -> None:
    table = TABLE.read_text(encoding="utf-8")
    for name in EXPERIMENTS:
        path = f"experiments/{name}.toml"
        with lines.section(f"{name}: the table is what the command prints", shown("run", path)):
            out = folder / name
            cells, seconds = printed(name, out)
            found = row(name, cells, about(out))
            lines.add(
                f"{name}: the table of experiments/README.md is what the command prints",
                shown("run", path, "--reproducible"),
                found,
                met=found in table.splitlines(),
            )
            # Fresh noise, fresh partitions: what a user gets.
            walls, figures, claims = [seconds], [], []
            for seed in range(FRESH):
                result, wall = train(path, folder / f"{name}-{seed}", "--seed", str(seed))
                walls.append(wall)
                figures.append(next(iter(result["metrics"].values())))
                claims = result["claims"]
            private = {c["unit"]: c["epsilon"] for c in claims if c["epsilon"] is not None}
            which = next(iter(result["metrics"]))
            lines.add(
                f"{name}: one command, privacy on, under 3 minutes on two cores",
                shown("run", path, "--json", "--seed", f"0..{FRESH - 1}"),
                f"longest {max(walls):.0f} s of {len(walls)}; epsilon {private}; {which} mean "
                f"{statistics.mean(figures):.4f}, all {[round(figure, 4) for figure in figures]}",
                met=max(walls) < SECONDS and bool(private),
            )


def mnist(lines: Lines, folder: Path) -> None:
    path = "experiments/mnist-writers.toml"
    kept = [json.loads((folder / f"mnist-writers-{seed}" / "record.jsonl").read_text().splitlines()[-1])
            for seed in range(FRESH)]  # fmt: skip
    start = json.loads((folder / "mnist-writers-0" / "record.jsonl").read_text().splitlines()[0])
    claim = {c["unit"]: c for c in start["claims"]}["client"]
    found = [end["accuracy"] for end in kept]
    lines.add(
        "MNIST by writer: client-level epsilon 8 over all 539 writers (delta <= 1/1,000) reaches 0.80",
        shown("run", path, "--seed", f"0..{FRESH - 1}"),
        f"{start['model']['name']}, {start['federation']['clients']} writers, epsilon {claim['epsilon']:.4f} at "
        f"{claim['delta']:g}: {found}",
        met=min(found) >= 0.80 and claim["epsilon"] <= 8.0 and claim["delta"] <= 1e-3
        and start["federation"]["clients"] == 539,
    )  # fmt: skip
    for title, options, least, seeds in (
        ("record-level epsilon 3 reaches 0.90", MNIST_RECORD, 0.90, 2),
        ("no privacy reaches 0.97", MNIST_NONE, 0.97, 1),
    ):
        with lines.section(f"MNIST by writer: {title}", shown("run", path, *options)):
            figures, claims, walls = [], {}, []
            for seed in range(seeds):
                out = folder / f"mnist-{least}-{seed}"
                result, wall = train(path, out, *options, "--seed", str(seed))
                figures.append(result["accuracy"])
                walls.append(round(wall))
                claims = {c["unit"]: (c["epsilon"], c["delta"]) for c in result["claims"]}
            lines.add(
                f"MNIST by writer: {title}",
                shown("run", path, *options, "--seed", f"0..{seeds - 1}"),
                f"{figures}; epsilon and delta {claims}; {walls} s",
                met=min(figures) >= least and (least > 0.95 or claims["record"][0] <= 3.0),
            )


def parkinsons(lines: Lines, folder: Path) -> None:
    out = folder / "parkinsons"
    findings = [json.loads(line) for line in (out / "findings.jsonl").read_text().splitlines()]
    last = max(finding["round"] for finding in findings)
    found = {
        (finding["metric"], finding["where"].get("clients")): finding
        for finding in findings
        if finding["round"] == last and finding["metric"].startswith("generalisation.")
    }
    text = "; ".join(
        f"{metric}{'' if who is None else f' on {who} clients'} {finding['value']:.3f} {finding['interval']}"
        for (metric, who), finding in found.items()
    )
    seen, unseen = (found["generalisation.r2", who] for who in ("seen", "unseen"))
    page = (out / "report.html").read_text(encoding="utf-8")
    lines.add(
        "Parkinson's: the report shows that a random split flatters the model and a by-patient split does not",
        shown("run", "experiments/parkinsons.toml"),
        text,
        met=seen["value"] > 0.0 > unseen["interval"][1]
        and found["generalisation.r2_gap", None]["interval"][0] > 0.0
        and "Generalisation" in page,
    )


def suites(lines: Lines) -> None:
    for name, path in (("every stacked rule against its oracles", ORACLES), *CONTRACTS.items()):
        done = pytest(path)
        lines.add(
            f"contract suite: {name}" if name in CONTRACTS else name,
            f"python -m pytest {path}",
            done.stdout.strip().splitlines()[-1],
            met=done.returncode == 0,
        )
    done = pytest("tests/client/test_probe.py", "-k", "mixing_is_refused", "-vv")
    refused = re.findall(r"::(\S+\[[^]]*\]) PASSED", done.stdout)
    lines.add(
        "planted models that mix examples are refused with the remedy",
        "python -m pytest tests/client/test_probe.py -k mixing_is_refused -v",
        f"{len(refused)} pass: {', '.join(refused)}",
        met=done.returncode == 0 and len(refused) >= 6,
    )


def pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def flower(lines: Lines) -> dict[str, Any]:
    before = _flower_processes()
    result = compare_runtimes(FLOWER.read_text(encoding="utf-8"), range(3))
    means = {name: round(runs["accuracy_mean"], 4) for name, runs in result["runtimes"].items()}
    ours, *others = means.values()
    spread = max(runs["accuracy_spread"] for runs in result["runtimes"].values())
    lines.add(
        FLOWER_LINES[0],
        "python benchmarks/flower_runtimes.py",
        f"means {means}, largest spread of seeds {spread:.4f}, one plan: {result['same_plan']}",
        met=result["same_plan"] and all(abs(other - ours) <= spread for other in others),
    )
    left = _flower_processes() - before
    lines.add(FLOWER_LINES[1], "ps", f"{len(left)} Flower processes more than before", met=not left)
    done = pytest("tests/apps")
    lines.add(
        FLOWER_LINES[2],
        "python -m pytest tests/apps",
        done.stdout.strip().splitlines()[-1],
        met=done.returncode == 0,
    )
    return result


def _flower_processes() -> set[str]:
    """Number and command of each, whoever started it."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout.splitlines()
    return {line for line in listed if "flower-super" in line or "flwr-serverapp" in line}


BROKEN = {
    "an aggregator that gives the wrong type": (
        "aggregator.py", "    def combine(self, updates: Updates) -> NDArray[np.float64]:",
        "    def combine(self, updates):\n        return 'nothing'\n\n    def combined(self, updates):",
    ),
    "a model that raises": (
        "model.py", None, "def small_net(features, outputs, width):\n    raise RuntimeError('no')\n",
    ),
    "an assessor that raises": (
        "assessor.py", "    def __call__(",
        "    def __call__(self, subject, *, rng, tier):\n        raise RuntimeError('no')\n\n    def called(",
    ),
}  # fmt: skip


def extension(lines: Lines, folder: Path) -> None:
    def project(name: str) -> Path:
        where = folder / f"project-{name}"
        done = fedsafe("new", name, "--out", str(where))
        if done.returncode:
            raise RuntimeError(done.stderr)
        return where

    where = project("clinic")
    ran = fedsafe("run", "clinic.toml", cwd=where)
    own = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=where,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(where)},
    )
    lines.add(
        "a module, an aggregator and an assessor in a folder of their own are used by config",
        "fedsafe new clinic; fedsafe run clinic.toml; pytest",
        f"run exit {ran.returncode}; tests: {own.stdout.strip().splitlines()[-1]}",
        met=ran.returncode == 0 and own.returncode == 0,
    )
    for number, (title, (file, old, new)) in enumerate(BROKEN.items()):
        name = f"broken{number}"
        where = project(name)
        path = where / name / file
        text = path.read_text()
        if old is not None and old not in text:
            raise RuntimeError(f"the template's {file} has no {old!r}")
        path.write_text(new if old is None else text.replace(old, new))
        done = fedsafe("run", f"{name}.toml", cwd=where)
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        if "assessor" in file:
            run = next((where / "runs").iterdir())
            failed = [
                line
                for line in map(json.loads, (run / "findings.jsonl").read_text().splitlines())
                if line["status"] == "failed"
            ]
            reason = failed[-1]["detail"]["reason"] if failed else "none failed"
            said = f"exit {done.returncode}; finding: {reason}"
        lines.add(
            f"{title} is reported by name",
            f"fedsafe run {name}.toml",
            said,
            met=(done.returncode != 0 or "assessor" in file)
            and name in said.replace("_", "")
            and "Traceback" not in done.stderr,
        )


def write_table(folder: Path) -> None:
    """Put the rows that the commands print into the table between the markers."""
    rows = []
    for name in EXPERIMENTS:
        cells, seconds = printed(name, folder / name)
        rows.append(row(name, cells, about(folder / name)))
        print(f"{seconds:.0f} s  {rows[-1]}", flush=True)
    text = TABLE.read_text(encoding="utf-8")
    head, rest = text.split("|---|---|---|---|---|---|\n", 1)
    tail = rest[re.match(r"(?:\|.*\n)*", rest).end() :]  # type: ignore[union-attr]
    TABLE.write_text(head + "|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n" + tail, encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if sys.argv[1:] == ["experiments"]:
            write_table(folder)
            return
        lines = Lines(folder)
        if sys.argv[1:] == ["flower"]:
            written = json.loads((ROOT / "benchmarks" / "results" / "breadth.json").read_text())["lines"]
            lines.rows = [row for row in written if row["line"] not in FLOWER_LINES]
        else:
            experiments(lines, folder)
            with lines.section("MNIST by writer", "fedsafe run experiments/mnist-writers.toml"):
                mnist(lines, folder)
            with lines.section("Parkinson's", "fedsafe run experiments/parkinsons.toml"):
                parkinsons(lines, folder)
            with lines.section("extension", "fedsafe new NAME"):
                extension(lines, folder)
            suites(lines)
        found: dict[str, Any] = {}
        with lines.section(FLOWER_LINES[0], "python benchmarks/flower_runtimes.py"):
            found = flower(lines)
        sys.exit(lines.write("breadth", flower=found))


if __name__ == "__main__":
    main()
