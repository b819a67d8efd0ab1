"""What the assessors' framework is held to: time and brackets on MNIST, every kind of run, wrong input, repeated looks.

    python benchmarks/accept_assess_framework.py [--model STATE_DICT] [--skip mnist,runs,...]

The CNN is trained without privacy for a minute, or read from a file.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from lines import FEDSAFE, ROOT, Lines
from torch import nn

from fedsafe.assess import DEFAULT, Requirement, Subject, judge, ready_assessors, run_assessors
from fedsafe.data import load_task
from fedsafe.findings import Pairs, brackets, confidence_of_look, paired_newcombe, proportion
from fedsafe.models import build_model
from fedsafe.records import Round
from fedsafe.store import RunFolder

HERE = "python benchmarks/accept_assess_framework.py"
RULES = ("certified_below_attacked", "certified_below_clean", "attacked_below_clean", "falls_with_radius")
MODULES = """
from dataclasses import replace

import numpy as np
from fedsafe.data import load_task
from torch import nn


def model():
    return nn.Linear(load_task("breast-cancer").train.x.shape[1], 1)


def changed(**values):
    task = load_task("breast-cancer")
    return replace(task, evaluation=replace(task.evaluation, **values))


def wrong_label():
    y = load_task("breast-cancer").evaluation.y.copy()
    y[3] = 7
    return changed(y=y)


def not_a_number():
    x = load_task("breast-cancer").evaluation.x.copy()
    x[3, 0] = np.nan
    return changed(x=x)


def one_group():
    return changed(groups={"hospital": np.full(len(load_task("breast-cancer").evaluation), "A")})
"""


def cnn(path: str | None) -> nn.Module:
    """The CNN of 26 thousand parameters at about 98.9 %."""
    task = load_task("mnist-writers")
    model = build_model("cnn", signature=task.signature, seed=0)
    if path is not None:
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    x, y = torch.tensor(task.train.x), torch.tensor(task.train.y)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for rows in torch.randperm(len(x), generator=generator).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval()


def mnist(lines: Lines, model: nn.Module) -> None:
    """Time of both tiers, as in a run with an accepted model, and the order of every bracket."""
    task = load_task("mnist-writers")
    shards = tuple(np.array_split(np.arange(len(task.evaluation)), 297))
    subject = Subject(
        model=model,
        task=task,
        evaluation=task.evaluation,
        evaluation_name=task.evaluation_name,
        shards=shards,
        previous=model,
        round=10,
    )
    assessors = ready_assessors(DEFAULT)  # imported before the first round, as in a run
    for tier, most in (("cheap", 3.0), ("full", 300.0)):
        seconds: dict[str, float] = {}
        began = time.process_time()
        found = run_assessors(subject, assessors, rng_seed=0, tier=tier, timed=seconds.__setitem__)  # type: ignore[arg-type]
        spent = time.process_time() - began
        slowest = ", ".join(
            f"{name} {value:.1f}" for name, value in sorted(seconds.items(), key=lambda i: -i[1])[:5]
        )
        lines.add(
            f"MNIST, the CNN: the {tier} tier takes under {most:g} s",
            HERE,
            f"{spent:.2f} s of one core ({slowest} by the wall)",
            met=spent < most,
        )
        checks = [
            finding.diagnostics[rule]
            for group in found.values()
            for finding in group
            for rule in RULES
            if rule in finding.diagnostics
        ]
        broken = sum(check["violations"] for check in checks)
        shown = brackets([finding.to_json() for group in found.values() for finding in group])
        both = [bracket for bracket in shown if bracket.low is not None and bracket.high is not None]
        best = max(both, key=lambda bracket: (bracket.low or 0, bracket.n or 0), default=None)
        example = (
            ""
            if best is None
            else f"; {dict(best.where)}: [{best.low:.3f}, {best.high:.3f}], clean {best.clean:.3f}"
        )
        lines.add(
            f"{tier} tier: certified <= attacked <= clean on every example",
            HERE,
            f"{broken} violations in {len(checks)} checks of {sum(check['examples'] for check in checks):,} examples; "
            f"{len(both)} brackets with both ends{example}",
            met=broken == 0 and len(both) > 0 and all(bracket.holds for bracket in both),
        )


def widening(lines: Lines, folder: Path) -> None:
    """A run of MNIST whose assessments take more than a fifth of its time."""
    command = [
        *FEDSAFE,
        "run",
        "experiments/mnist-writers.toml",
        "--engine",
        "inline",
        "--out",
        str(folder / "wide"),
    ]
    for change in ("rounds=12", "assess.every=1", 'assess.assessors=["performance","robustness"]'):
        command += ["--set", change]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    every = [
        line.assess_every for line in RunFolder.open(folder / "wide").record() if isinstance(line, Round)
    ]
    page = (folder / "wide" / "report.html").read_text()
    said = "The rounds between two assessments grew from 1 to 2" in page
    lines.add(
        "assess.max_share (20 %) widens the period by itself, and the record says so",
        " ".join(command[2:]),
        f"rounds between two assessments after each round: {every}; on the page: {said}",
        met=every[-1] > 1 and said,
    )


def kinds(lines: Lines, folder: Path) -> None:
    """What cannot be measured says so with a reason, and nothing fails, on four kinds of model."""
    (folder / "mine.py").write_text(MODULES)
    targets = {"mine:model": ["--task", "breast-cancer"]}
    for name in ("breast-cancer", "digits", "parkinsons"):
        out = str(folder / name)
        subprocess.run(
            [*FEDSAFE, "run", f"experiments/{name}.toml", "--engine", "inline", "--set", "rounds=3", "--out", out,
             "--set", 'assess.assessors=["performance"]', "--set", "assess.require=[]"],
            cwd=ROOT, check=True, capture_output=True,
        )  # fmt: skip
        targets[out] = []
    for target, more in targets.items():
        command = [
            *FEDSAFE,
            "assess",
            target,
            *more,
            "--tier",
            "cheap",
            "--json",
            "--only",
            ",".join(DEFAULT),
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        found = json.loads(done.stdout)["findings"] if done.returncode == 0 else []
        count = {status: sum(line["status"] == status for line in found) for status in
                 ("measured", "insufficient", "not_applicable", "unreliable", "failed")}  # fmt: skip
        silent = [
            line["metric"] for line in found if line["status"] != "measured" and not line["detail"]["reason"]
        ]
        lines.add(
            f"{Path(target).name}: what cannot be measured says why",
            " ".join(command[2:]),
            done.stderr.strip() or str(count),
            met=bool(found) and not silent and not count["failed"],
        )


def wrong_input(lines: Lines, folder: Path) -> None:
    """One clear line each."""
    (folder / "mine.py").write_text(MODULES)
    (folder / "rules.toml").write_text(
        '[[require]]\nmetric = "performance.acuracy"\nop = ">="\nthreshold = 0.5\n'
    )
    gap = '[[require]]\nmetric = "fairness.accuracy_difference"\nop = "<="\nthreshold = 0.5\n'
    (folder / "gap.toml").write_text(gap)
    for what, arguments, code in (
        ("labels out of range", ["--task", "mine:wrong_label"], 1),
        ("NaN features", ["--task", "mine:not_a_number"], 1),
        ("a requirement on an unknown metric", ["--task", "breast-cancer", "--require", "rules.toml"], 1),
        (
            "a group column with one value",
            ["--task", "mine:one_group", "--only", "fairness", "--require", "gap.toml"],
            3,
        ),
    ):
        command = [*FEDSAFE, "assess", "mine:model", "--tier", "cheap", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        lines.add(
            f"wrong input is one clear line: {what}",
            " ".join(command[2:]),
            done.stderr.strip(),
            met=done.returncode == code and done.stderr.count("\n") == 1,
        )


def repeated_looks(lines: Lines, runs: int) -> None:
    """Wrong verdicts over whole runs, and the coverage of the paired interval."""
    rng, due = np.random.default_rng(0), list(range(1, 11))
    rule = Requirement(metric="performance.accuracy", op=">=", threshold=0.8, confidence=0.9)
    shares = {}
    for spending in ("half_last", "bonferroni", "none"):
        asked = [confidence_of_look(number, due, 0.9, spending) for number in due]
        wrong = 0
        for counts in rng.binomial(1000, 0.8, size=(runs, len(due))):
            findings = [proportion("performance.accuracy", int(k), 1000) for k in counts]
            said = [judge(rule, [one], confidence=c).verdict for one, c in zip(findings, asked, strict=True)]
            wrong += "fail" in said
        shares[spending] = wrong / runs
    lines.add(
        "over ten looks a requirement fails wrongly in at most 5 % of the runs (0.9 two-sided)",
        HERE,
        f"{shares} of {runs} runs; without spending alpha it is more",
        met=shares["half_last"] <= 0.05 + 0.02 and shares["none"] > 0.1,
    )
    cells, covered = (0.90, 0.03, 0.02, 0.05), 0
    for counts in rng.multinomial(500, cells, size=runs):
        low, high = paired_newcombe(
            Pairs(**dict(zip(("both", "first", "second", "neither"), map(int, counts), strict=True)))
        )
        covered += low <= cells[1] - cells[2] <= high
    lines.add("paired 95 % intervals cover in at least 93 % of the runs", HERE, f"{covered / runs:.4f} of {runs}",
              met=covered / runs >= 0.93)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=None)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--skip", default="")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = Lines(folder)
        parts = {
            "looks": lambda: repeated_looks(lines, given.runs),
            "input": lambda: wrong_input(lines, folder),
            "runs": lambda: kinds(lines, folder),
            "wide": lambda: widening(lines, folder),
            "mnist": lambda: mnist(lines, cnn(given.model)),
        }
        for part, work in parts.items():
            if part not in given.skip.split(","):
                with lines.section(part, HERE):
                    work()
        sys.exit(lines.write("assess_framework", runs=given.runs))


if __name__ == "__main__":
    main()
