"""The lines of adversarial robustness: known truth, other people's libraries, and MNIST's costs.

    python benchmarks/accept_assess_robustness.py          # about ten minutes on a quiet core
    python benchmarks/accept_assess_robustness.py quick    # without AutoAttack

AutoAttack is pyautoattack's standard set; `make crosscheck` installs it. MNIST is read from $FEDSAFE_DATA_DIR. In the
maximum norm 500 points are compared; in the Euclidean one 120, as 500 take AutoAttack several minutes of a core.

What the cheap tier of this assessor takes is written down and held to nothing: about 1.5 s of a core, all of it passes
of attacks (222 forward, 80 backward), none of it imports or first calls. What is held to a time is the cheap tier of
all assessors together, in `accept_assess_framework.py`.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lines import ROOT, Lines
from torch import nn
from torch.nn import functional

from fedsafe.assess import Subject, run_assessors
from fedsafe.assess.robustness.assessor import Robustness
from fedsafe.assess.robustness.attacking import quick, run_attack
from fedsafe.assess.robustness.effort import FULL
from fedsafe.data import Task, load_task
from fedsafe.models import build_model

sys.path.append(str(ROOT / "tests" / "crosscheck" / ".libraries"))

TESTS = {
    "robust accuracy of a linear model is the exact one, planted adversarials are found: every attack": (
        "tests/assess/test_attacks_known_truth.py",
        "tests/assess/test_robustness.py",
    ),
    "masked gradients are called unreliable; curves, flips, evidence and pictures against slow oracles": (
        "tests/assess/test_robustness_instrument.py",
    ),
    "FGSM and PGD without a random start are foolbox's to 1e-6": ("tests/crosscheck/test_attacks_peers.py",),
}
RADII = {"linf": 0.1, "l2": 1.5}
POINTS = {"linf": 500, "l2": 120}


def trained(task: Task, epochs: int = 3) -> nn.Module:
    """The small network, trained without privacy."""
    model = build_model("cnn", signature=task.signature, seed=0)
    x, y = torch.tensor(task.train.x), torch.tensor(task.train.y)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(128):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval()


def cost(lines: Lines, subject: Subject, tier: str, most: float = float("inf")) -> float:
    """Whether everything is measured, and within a time; seconds of CPU time."""
    wall, own = time.perf_counter(), time.process_time()
    found = run_assessors(subject, ["robustness"], rng_seed=0, tier=tier)["robustness"]
    wall, own = time.perf_counter() - wall, time.process_time() - own
    odd = [f for f in found if f.status not in ("measured", "not_applicable")]
    within = f"at most {most:g} s of one core, " if most < float("inf") else ""
    lines.add(
        f"MNIST, {tier} tier of robustness: {within}everything measured",
        f'run_assessors(subject, ["robustness"], tier="{tier}")',
        f"{own:.2f} s of CPU time, {wall:.2f} s of wall time; {len(found)} findings, {len(odd)} not measured",
        met=own <= most and not odd,
    )
    return own


def worst_case(subject: Subject, norm: str, radius: float, points: int) -> tuple[np.ndarray, float]:
    """What withstands all of our attacks in the full tier; and the seconds of CPU time."""
    radii = {"radii": (radius,), "l2_radii": ()} if norm == "linf" else {"radii": (), "l2_radii": (radius,)}
    assessor = Robustness(full=replace(FULL, examples=points, values=1 << 40), scales=(), **radii)
    own = time.process_time()
    found = assessor(subject, rng=np.random.default_rng(0), tier="full")
    (worst,) = (f for f in found if f.where.get("attack") == "worst")
    assert worst.evidence is not None, worst.reason
    return worst.evidence.holds, time.process_time() - own


def beside_autoattack(lines: Lines, subject: Subject, norm: str, radius: float) -> None:
    points = POINTS[norm]
    ours, seconds = worst_case(subject, norm, radius, points)
    examples = subject.evaluation.take(subject.shared_rows(points))
    own = time.process_time()
    found = run_attack(
        quick(subject, examples.x[:8]), examples, "autoattack", norm, radius, 0, 1, np.random.default_rng(0)
    )
    theirs_seconds = time.process_time() - own
    if isinstance(found, str):
        raise RuntimeError(found)
    theirs = (subject.predict(found) == examples.y) & (subject.predict(examples.x) == examples.y)
    gap = 100 * (ours.mean() - theirs.mean())
    lines.add(
        f"worst case on {points} MNIST points at most one point above pyautoattack's standard ({norm} {radius:g})",
        f"Robustness(full=...)(subject, tier='full') and run_attack(..., 'autoattack', '{norm}', {radius:g}, ...)",
        f"ours {100 * ours.mean():.1f} % ({seconds:.0f} s), AutoAttack {100 * theirs.mean():.1f} % "
        f"({theirs_seconds:.0f} s): {gap:+.1f} points; {int((ours & ~theirs).sum())} examples fell to AutoAttack "
        f"alone, {int((theirs & ~ours).sum())} to ours alone",
        met=gap <= 1.0,
    )


def main() -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder))
        for line, paths in TESTS.items():
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "-k",
                    "not autoattack",
                    *paths,
                ],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            last = (done.stdout.strip().splitlines() or ["no output"])[-1]
            lines.add(line, f"pytest {' '.join(paths)}", last, met=done.returncode == 0)
        seconds: dict[str, float] = {}
        with lines.section("MNIST", "load_task('mnist-writers')"):
            task = load_task("mnist-writers")
            subject = Subject.outside(trained(task), task)
            seconds["cheap"] = cost(lines, subject, "cheap")
            seconds["full"] = cost(lines, subject, "full", 90.0)
            if "quick" not in sys.argv[1:]:
                for norm, radius in RADII.items():
                    with lines.section(f"AutoAttack {norm}", "run_attack(..., 'autoattack', ...)"):
                        beside_autoattack(lines, subject, norm, radius)
        return lines.write("assess_robustness", cpu_seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
