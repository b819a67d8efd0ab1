"""The lines about audits: a bound that is one, that is close, and that crosses the accounted epsilon where it must.

``python benchmarks/audits.py`` writes ``results/audits.json``; the exit code is 1 where a line falls short.
"""

import math
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from lines import ROOT, Lines

from fedsafe.audit import AuditReport, Setting, audit_run
from fedsafe.privacy.audit import one_run_bound
from fedsafe.runs.audit_setting import setting_of
from fedsafe.runs.compose import calibrate, compose
from fedsafe.runs.config import read_config

COMMAND = "python benchmarks/audits.py"
RUNS, CANARIES, TRUTH = 1000, 5000, 1.0


def randomised_response(lines: Lines) -> None:
    rng = np.random.default_rng(2023)
    share = math.exp(TRUTH) / (1.0 + math.exp(TRUTH))
    bounds = []
    for _ in range(RUNS):
        included = rng.random(CANARIES) < 0.5
        told = included ^ (rng.random(CANARIES) > share)
        bounds.append(one_run_bound(told.astype(float), included, delta=0.0, rng=rng).epsilon)
    below = sum(bound <= TRUTH for bound in bounds)
    median = statistics.median(bounds)
    lines.add(
        "randomised response of epsilon 1, 5,000 canaries: at most the truth in 930 of 1,000 runs, median >= 0.8 of it",
        COMMAND,
        f"at most the truth in {below} of {RUNS}; median {median:.4f}, largest {max(bounds):.4f}",
        met=below >= 930 and median >= 0.8 * TRUTH,
    )


def adult(seed: int) -> Setting:
    parts = compose(read_config(ROOT / "experiments" / "adult.toml", [f"seed={seed}"]))
    return setting_of(parts, calibrate(parts))


def without_noise(of: Setting) -> Setting:
    return replace(of, training=replace(of.training, noise=0.0))


def without_clip(of: Setting) -> Setting:
    training = of.training
    return replace(of, training=replace(training, clip=1e6, noise=training.noise * training.clip / 1e6))


def told(report: AuditReport, seconds: float) -> str:
    look = report.looks[-1]
    guessed = (
        f"{look.bound.right} of {look.bound.guesses} guesses right" if look.bound.guesses else "no proof"
    )
    return (
        f"{guessed}: epsilon > {look.bound.epsilon:.3f}, accounted "
        f"{look.accounted:.3f} at delta {report.delta:g} (if Gaussian {look.gaussian:.3f}; if independent "
        f"{look.membership:.3f}) in {seconds:.0f} s"
        + ("" if look.cosines is None else f"; cosine estimate {look.cosines.sum_of_rounds.epsilon:.3f}")
    )


def faults(lines: Lines) -> None:
    of = adult(0)
    for name, fault in (("no noise", without_noise), ("no clip", without_clip)):
        began = time.perf_counter()
        report = audit_run(fault(of), canaries=1000)
        look = report.looks[-1]
        lines.add(
            f"with {name}, 1,000 gradient canaries: the one-run bound exceeds the accounted epsilon, at most 3",
            COMMAND,
            told(report, time.perf_counter() - began),
            met=look.crossed and look.accounted is not None and look.accounted <= 3.0,
        )


def with_inputs(lines: Lines) -> None:
    began = time.perf_counter()
    report = audit_run(without_noise(adult(0)), kind="input", canaries=1000)
    lines.add(
        "with no noise, 1,000 mislabelled records: the one-run bound exceeds the accounted epsilon",
        COMMAND,
        told(report, time.perf_counter() - began),
        met=report.crossed,
    )


def correct(lines: Lines, seeds: int) -> None:
    for kind in ("gradient", "input", "client"):
        texts, crossed = [], 0
        for seed in range(seeds if kind == "gradient" else 1):
            began = time.perf_counter()
            report = audit_run(adult(seed), kind=kind, canaries=1000, every=10)
            crossed += report.crossed
            texts.append(told(report, time.perf_counter() - began))
        lines.add(
            f"a correct run does not cross ({kind} canaries, {len(texts)} runs, a look every 10 rounds)",
            COMMAND,
            f"{crossed} of {len(texts)} crossed; first: {texts[0]}",
            met=crossed == 0,
        )


def main() -> int:
    lines = Lines(Path(tempfile.gettempdir()))
    for part in (randomised_response, faults, with_inputs, lambda all_lines: correct(all_lines, 5)):
        with lines.section(getattr(part, "__name__", "correct"), COMMAND):
            part(lines)
    return lines.write("audits")


if __name__ == "__main__":
    sys.exit(main())
