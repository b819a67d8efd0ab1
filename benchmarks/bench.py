"""Runs the comparisons with peers, writes ``results/bench.json``, and the table of ``README.md`` from it.

    python benchmarks/bench.py [--repeats N] [SCRIPT ...]

Each script runs in a process of its own. With names only those run, and the others' results stay as they are.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions, version
from pathlib import Path
from typing import Any

from comparing import HERE, REPEATS, Comparison, from_json, run_json
from lines import Lines
from table import write_table

# In the order of the table.
SCRIPTS = (
    "engine_dense", "rounds_flower", "sequences_opacus", "local_sgd_pfl", "flute", "do_nothing", "round_overhead",
)  # fmt: skip
_PACKAGES = ("fedsafe", "flwr", "ray", "torch", "numpy", "opacus")


def compare_all(lines: Lines, scripts: Sequence[str], repeats: int) -> list[dict[str, Any]]:
    """Run scripts and add a line for each comparison; what each measured, with the script's name."""
    found = []
    for name in scripts:
        command = f"python benchmarks/{name}.py"
        with lines.section(f"{name}: the comparison runs", command):
            path = str(HERE / f"{name}.py")
            rows = run_json([sys.executable, path, "--repeats", str(repeats), "--json"], timeout=3600.0)
            for row in rows:
                comparison = from_json(row)
                lines.add(line_of(comparison), command, str(comparison), met=comparison.met)
                found.append({"script": name, **row})
    return found


def line_of(comparison: Comparison) -> str:
    """What is asked."""
    asked = [f"at least {comparison.least:g}x faster"] if comparison.least is not None else []
    asked += [f"{limit.name} at most {limit.most:g} {limit.unit}" for limit in comparison.limits]
    return f"{comparison.work}, against {comparison.peer}: {', '.join(asked)}"


def versions() -> dict[str, str]:
    """Of FedSafe, what it stands on, and the peers; pfl lives in an environment of its own."""
    found = {name: version(name) for name in _PACKAGES}
    folders = [str(path) for path in (HERE / ".peers").glob("pfl/lib/python*/site-packages")]
    own: list[Distribution] = list(distributions(name="pfl", path=folders))
    return found | ({"pfl": own[0].version} if own else {})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT")
    options = parser.parse_args()
    if unknown := set(options.scripts) - set(SCRIPTS):
        parser.error(f"no script {', '.join(sorted(unknown))}: use {', '.join(SCRIPTS)}")
    chosen = [name for name in SCRIPTS if name in options.scripts] or list(SCRIPTS)
    path = HERE / "results" / "bench.json"
    before = json.loads(path.read_text()) if path.exists() else {"comparisons": [], "lines": []}
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder))
        found = compare_all(lines, chosen, options.repeats)
    again = {f"python benchmarks/{name}.py" for name in chosen}
    lines.rows = [row for row in before["lines"] if row["command"] not in again] + lines.rows
    kept = [row for row in before["comparisons"] if row["script"] not in chosen] + found
    code = lines.write(
        "bench",
        versions=versions(),
        comparisons=sorted(kept, key=lambda row: SCRIPTS.index(row["script"])),
    )
    write_table(path)
    return code


if __name__ == "__main__":
    sys.exit(main())
