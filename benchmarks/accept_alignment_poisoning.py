"""Preferences turned round on purpose: how many of the annotators it takes, under the mean and under the median.

    python benchmarks/accept_alignment_poisoning.py

Trains ``experiments/offensiveness.toml`` without privacy, once by the mean and once by the median of updates, and lets
the assessor ``preference_poisoning`` train each federation again while a share of the annotators turn their labels
round. What is held to something is the instrument: the curve is whole, starts at the run's own accuracy and does not
end above it. The shares themselves are reported. Writes ``results/alignment_poisoning.json``.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lines import Lines, shown, train

EXPERIMENT = "experiments/offensiveness.toml"
OPEN = {
    "privacy.client.epsilon": "inf",
    "rounds": "10",
    "client.steps": "8",
    "assess.tier": '"full"',
    "assess.every": "10",
    "assess.require": "[]",
    "assess.assessors": '["alignment","preference_poisoning"]',
}
SHARES = 6
MOST_SECONDS = 600.0


def settings(rule: str) -> list[str]:
    """Of the command line."""
    return [
        word
        for key, value in {**OPEN, "server.aggregator": f'"{rule}"'}.items()
        for word in ("--set", f"{key}={value}")
    ]


def findings_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Findings of the last assessment by metric."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in (folder / "findings.jsonl").read_text().splitlines():
        finding = json.loads(line)
        found.setdefault(finding["metric"], []).append(finding)
    return found


def judge(lines: Lines, rule: str) -> None:
    """One rule's line."""
    out = lines.folder / rule
    began = time.perf_counter()
    train(EXPERIMENT, out, *settings(rule))
    seconds = time.perf_counter() - began
    found = findings_of(out)
    curve = sorted(found["preference_poisoning.accuracy"], key=lambda finding: finding["where"]["share"])
    accuracies = [finding["value"] for finding in curve]
    own = found["alignment.accuracy"][0]["value"]
    said = []
    for name, words in (("breakdown_share", "half of the gain"), ("share_to_chance", "all of the gain")):
        (finding,) = found[f"preference_poisoning.{name}"]
        sign = "" if finding["detail"].get("reached") else "more than "
        said.append(
            f"{words} at {sign}{finding['value']}"
            if finding["value"] is not None
            else f"{words}: {finding['detail']['reason']}"
        )
    values = ", ".join(f"{f['where']['share']:.0%}: {f['value']:.3f}" for f in curve)
    lines.add(
        f"preferences turned round by a share of the clients, under {rule}: accuracy of the rule trained anew, and the "
        f"share that takes the gain",
        shown("run", EXPERIMENT, *settings(rule)),
        f"{values}; {'; '.join(said)}; the run itself {own:.3f}; {seconds:.0f} s",
        met=len(curve) == SHARES
        and abs(accuracies[0] - own) < 0.02
        and accuracies[-1] < own
        and seconds < MOST_SECONDS,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder))
        for rule in ("fedavg", "median"):
            with lines.section(f"{rule} is judged", "python benchmarks/accept_alignment_poisoning.py"):
                judge(lines, rule)
        sys.exit(lines.write("alignment_poisoning"))
