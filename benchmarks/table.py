"""The table of ``README.md``, made from a file of results, so that it says what was measured."""

import json
import statistics
from pathlib import Path
from typing import Any

from comparing import HERE, Comparison, from_json

README = HERE / "README.md"
BEGIN, END = "<!-- what follows is written by benchmarks/table.py -->\n", "<!-- until here -->\n"
_COLUMNS = ("work", "against", "FedSafe", "peer", "times faster (spread)", "at least", "", "notes")
_HEAD = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n"


def table(results: dict[str, Any], name: str) -> str:
    """The table of a file of results, with the machine and the versions."""
    rows = [_row(from_json({key: value for key, value in row.items() if key != "script"}))
            for row in results["comparisons"]]  # fmt: skip
    machine = results["machine"]
    versions = ", ".join(f"{package} {number}" for package, number in results["versions"].items())
    said = (
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}; {versions}; "
        f"`benchmarks/results/{name}`, at commit {results['commit'][:12]}."
    )
    return f"{_HEAD}{''.join(rows)}\n{said}\n"


def _row(comparison: Comparison) -> str:
    ours, theirs = (statistics.median(side) for side in (comparison.ours, comparison.theirs))
    low, high = comparison.spread
    faster = "" if comparison.least is None else f"{comparison.ratio:.1f} ({low:.1f} to {high:.1f})"
    asked = [] if comparison.least is None else [f"{comparison.least:g}"]
    cells = [
        comparison.work,
        comparison.peer,
        f"{ours:.4g} {comparison.unit}",
        f"{theirs:.4g}",
        faster,
        "; ".join([*asked, *map(str, comparison.limits)]),
        "met" if comparison.met else "**FELL SHORT**",
        comparison.notes,
    ]
    return f"| {' | '.join(cells)} |\n"


def write_table(path: Path) -> None:
    """Put the table of that file between the markers of the README."""
    text = README.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    new = table(json.loads(path.read_text(encoding="utf-8")), path.name)
    README.write_text(f"{head}{BEGIN}\n{new}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    write_table(HERE / "results" / "bench.json")
