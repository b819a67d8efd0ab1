"""The full lines of the experiments: each command of each README is run again, and its figures are what the README has.

    python benchmarks/accept_experiments.py [NAME ...]

Writes ``results/experiments.json``. Wall times mean something on a quiet machine alone; half of the processor seconds
beside them is what two quiet cores would take. Needs the real data in ``FEDSAFE_DATA_DIR``, or a network.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lines import FEDSAFE, ROOT, Lines

EXPERIMENTS = ROOT / "experiments"
sys.path.insert(0, str(EXPERIMENTS))

from blocks import SHOWN, block  # noqa: E402
from commands import FOLDER, commands  # noqa: E402
from tables import recorded  # noqa: E402

SECONDS = 180.0


def again(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, float], dict[str, float]]:
    """What the commands of a README leave behind now: each part, and for each command clock and processor seconds."""
    import subprocess

    parts, walls, spent = {}, {}, {}
    for words in commands(EXPERIMENTS / name / "README.md"):
        words = [word.replace(FOLDER, f"{folder}/") for word in words]
        if words[:2] == ["python", "experiments/tables.py"]:
            for text in words[3:]:
                part, _, where = text.partition("=")
                parts[part] = recorded(Path(where), SHOWN[name][part])
            continue
        command = [*FEDSAFE, *words[1:]] if words[0] == "fedsafe" else [sys.executable, *words[1:]]
        began, before = time.perf_counter(), os.times()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        after = os.times()
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(words)} failed with {done.returncode}: {done.stderr.strip()[-500:]}"
            )
        out = Path(words[words.index("--out") + 1]).name
        walls[out] = time.perf_counter() - began
        spent[out] = sum(after[2:4]) - sum(before[2:4])
    return parts, walls, spent


def repeat(lines: Lines, name: str, folder: Path) -> None:
    command = f"the commands of experiments/{name}/README.md"
    parts, walls, spent = again(name, folder)
    text = (EXPERIMENTS / name / "README.md").read_text(encoding="utf-8").splitlines()
    changed = [
        line
        for part, content in parts.items()
        for line in block(name, part, content).splitlines()
        if line not in text
    ]
    lines.add(
        f"{name}: the figures of the README are what its commands give",
        command,
        f"{len(changed)} lines differ{''.join(f'; {line}' for line in changed[:2])}",
        met=not changed and set(parts) == set(SHOWN[name]),
    )
    lines.add(
        f"{name}: each command in under {SECONDS / 60:g} minutes on two cores",
        command,
        "; ".join(
            f"{out} {walls[out]:.0f} s by the clock, {spent[out]:.0f} s of processor time" for out in walls
        ),
        met=all(min(walls[out], spent[out] / 2) < SECONDS for out in walls),
    )
    if name == "mnist-writers":
        trade_off(lines, parts["client"])


def trade_off(lines: Lines, content: dict[str, Any]) -> None:
    """Accuracy is bought with privacy: at client-level epsilon 8 against none, and over the budgets."""
    curve, trend = content["curves"][0], content["choices"][0]["trend"]
    lost = next(point["lost"] for point in curve["points"] if point["epsilon"] == "8")
    values = ", ".join(f"{point['epsilon']}: {point['value']:.4f}" for point in curve["points"])
    lines.add(
        "MNIST by writer: client-level epsilon 8 to infinity shows the trade-off",
        "the first command of experiments/mnist-writers/README.md",
        f"{values}; epsilon 8 against none {lost['value']:+.4f} [{lost['low']:+.4f}, {lost['high']:+.4f}]; rising with "
        f"p = {trend['p']:.1g}",
        met=lost["high"] < 0.0 and trend["p"] < 0.05,
    )


def main() -> int:
    names = sys.argv[1:] or list(SHOWN)
    with tempfile.TemporaryDirectory() as temporary:
        lines = Lines(Path(temporary))
        for name in names:
            with lines.section(name, f"experiments/{name}/README.md"):
                repeat(lines, name, Path(temporary))
    return lines.write("experiments")


if __name__ == "__main__":
    sys.exit(main())
