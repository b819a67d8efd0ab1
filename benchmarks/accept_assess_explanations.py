"""What the explanations are held to: known truth, other people's libraries, controls that must fail, and their time.

    python benchmarks/accept_assess_explanations.py [--model mnist_cnn.pt]

Writes ``results/assess_explanations.json``. The MNIST network is trained here, without privacy, unless the parameters
of one are given. Seconds are of one process with one thread, warmed up; beside other work those of the clock say
little, so the limit is one on those of the processor.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lines import ROOT, Lines
from sklearn.tree import DecisionTreeClassifier
from torch import nn
from torch.nn import functional as F

from fedsafe.assess import Subject, find_assessor, run_assessors
from fedsafe.assess.interpretability.explainers import explain
from fedsafe.assess.interpretability.features import by_unit, column_of_features
from fedsafe.assess.interpretability.rules import apply
from fedsafe.data import Task, load_task
from fedsafe.findings import Finding
from fedsafe.models import build_model

COMMAND = "python benchmarks/accept_assess_explanations.py"
NAMES = ("interpretability", "surrogate", "consistency")
CHEAP, FULL = 0.6, 50.0  # seconds
EXACT = ("integrated_gradients", "gradient_shap", "kernel_shap", "occlusion")


def trained(task: Task, name: str, epochs: int, given: Path | None = None) -> nn.Module:
    """A model of the zoo, trained without privacy."""
    model = build_model(name, signature=task.signature, seed=0)
    if given is not None:
        model.load_state_dict(torch.load(given))
        return model.eval()
    x, y = torch.tensor(task.train.x), torch.tensor(task.train.y)
    optimiser, order = torch.optim.Adam(model.parameters(), 2e-3), torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(128):
            optimiser.zero_grad()
            loss(task, model(x[rows]), y[rows]).backward()
            optimiser.step()
    return model.eval()


def loss(task: Task, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if task.kind == "regression":
        return F.mse_loss(outputs[:, 0], y)
    if task.kind == "binary":
        return F.binary_cross_entropy_with_logits(outputs[:, 0], y.float())
    return F.cross_entropy(outputs, y)


class Linear(nn.Module):
    """A linear model with large and different weights."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight[:, None]


class Grown(nn.Module):
    """A fitted tree as a model: it has no gradient."""

    def __init__(self, tree: DecisionTreeClassifier) -> None:
        super().__init__()
        self.tree = tree

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor(2.0 * self.tree.predict(x.detach().numpy()) - 1, dtype=torch.float32)[:, None]


def input_alone(forward: Any, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """An explainer that ignores the model."""
    return torch.linspace(0.5, 1.5, x[0].numel()).view(x[:1].shape).expand_as(x)


def by_key(findings: list[Finding]) -> dict[tuple[str, str, str], Finding]:
    return {
        (f.metric.partition(".")[2], str(f.where["explainer"]), str(f.where.get("baseline"))): f
        for f in findings
    }


def known_truth(lines: Lines) -> None:
    task = load_task("breast-cancer")
    subject = Subject.outside(Linear(task.signature.inputs[0]).eval(), task)
    x = task.evaluation.x
    mean, columns = x.mean(axis=0), column_of_features(task.schema)
    truth = by_unit(columns, (x - mean) * subject.model.weight.detach().numpy())
    errors = {}
    for name in EXACT:
        found = explain(subject, x, mean, 32, explainer=name, rng=np.random.default_rng(0))
        errors[name] = float(np.abs(by_unit(columns, found.attribution) - truth).max() / np.abs(truth).max())
    lines.add(
        "linear Shapley values match their closed form w_i (x_i - E x_i)",
        f"{COMMAND}  # breast-cancer, {len(x)} records, {len(columns)} columns",
        "largest error over the largest value: " + ", ".join(f"{k} {v:.1e}" for k, v in errors.items()),
        met=max(errors.values()) < 1e-3,
    )

    task = load_task("adult")
    grown = DecisionTreeClassifier(max_depth=3, min_samples_leaf=50, random_state=0)
    target = Subject.outside(Grown(grown.fit(task.train.x, task.train.y)).eval(), task)
    found = {f.metric: f for f in run_assessors(target, ["surrogate"], rng_seed=0, tier="full")["surrogate"]}
    rules, everyone = found["surrogate.rules"].detail["rules"], (task.train.x, task.evaluation.x)
    same = [float(np.mean(apply(rules, x) == target.predict(x))) for x in everyone]
    fidelity, total = found["surrogate.fidelity"], sum(map(len, everyone))
    lines.add(
        "a tree as target gives fidelity 1, and its rules, applied, decide every record as it does",
        f"{COMMAND}  # a tree of depth 3 on adult",
        f"fidelity {fidelity.value} {fidelity.interval} on {fidelity.n} held out; the rules agree on "
        f"{min(same):.6f} of {total}; one says: if {rules[2]['if']} then {rules[2]['then']}",
        met=fidelity.value == 1.0 and min(same) == 1.0,
    )

    away = by_key(
        run_assessors(
            target, [{"name": "interpretability", "explainers": ["integrated_gradients", "kernel_shap"]}],
            rng_seed=0, tier="cheap",
        )["interpretability"]
    )  # fmt: skip
    gradient, free = (
        away["infidelity", name, "midpoint"] for name in ("integrated_gradients", "kernel_shap")
    )
    lines.add(
        "a model without gradients: integrated gradients are not applicable, with the reason; kernel_shap measures",
        f"{COMMAND}  # the same tree",
        f"{gradient.status}: {gradient.reason}; kernel_shap {free.status}",
        met=gradient.status == "not_applicable" and free.status == "measured",
    )


def peers(lines: Lines) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/crosscheck/test_explanations.py",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines.add(
        "attributions, infidelity and sensitivity against captum, Shapley values against shap, Lime against lime",
        "pytest tests/crosscheck/test_explanations.py",
        done.stdout.strip().splitlines()[-1],
        met=done.returncode == 0 and "skipped" not in done.stdout,
    )


def on_mnist(lines: Lines, given: Path | None) -> None:
    task = load_task("mnist-writers")
    model = trained(task, "cnn", 2, given)
    subject = replace(Subject.outside(model, task), previous=model)
    run_assessors(subject, NAMES, rng_seed=0, tier="cheap")  # imports, and warms up
    for tier, limit in (("cheap", CHEAP), ("full", FULL)):
        wall, busy = time.perf_counter(), time.process_time()
        found = run_assessors(subject, NAMES, rng_seed=0, tier=tier)
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        costs = [find_assessor(name).plan(subject, tier) for name in NAMES]
        lines.add(
            f"the {tier} tier of interpretability, surrogate and consistency takes under {limit:g} s on MNIST",
            f"{COMMAND}  # the CNN, {sum(p.numel() for p in model.parameters())} parameters",
            f"{busy:.2f} s of the processor, {wall:.2f} s in all, load {os.getloadavg()[0]:.1f}; planned "
            f"{sum(c.forward for c in costs)} forward, {sum(c.backward for c in costs)} backward",
            met=busy < limit,
        )
    better = by_key(found["interpretability"])
    told, words = [], []
    for name in ("integrated_gradients", "gradient_shap", "kernel_shap", "lime", "occlusion"):
        for metric, sign in (("deletion_auc", 1), ("insertion_auc", -1), ("faithfulness", -1)):
            finding = better[metric, name, "zero"]
            random = finding.anchors["random_attribution"]
            ends = [sign * end for end in finding.interval]
            told.append(max(ends) < sign * random)
            words.append(f"{name} {metric} {finding.value:.3f} (random {random:.3f})")
    lines.add(
        "deletion, insertion and faithfulness of each explainer beat a random attribution, interval and all",
        COMMAND,
        "; ".join(words),
        met=all(told),
    )
    sensitivity = better["sensitivity_max", "integrated_gradients", "zero"]
    own = better["randomisation_similarity", "integrated_gradients", "zero"]
    outside = "accept_assess_explanations:input_alone"
    table = {"name": "interpretability", "explainers": [outside], "full": []}
    blind = by_key(run_assessors(subject, [table], rng_seed=0, tier="full")["interpretability"])
    control = blind["randomisation_similarity", outside, "midpoint"]
    lines.add(
        "random parameters change a true attribution and not one that ignores the model; slopes move less than random",
        COMMAND,
        f"similarity {own.value:.3f} {own.interval}, blind {control.value:.3f}; "
        f"max-sensitivity {sensitivity.value:.3f}, random {sensitivity.anchors['random_attribution']:.3f}",
        met=abs(own.value) < 0.3
        and control.value > 0.99
        and sensitivity.interval[1] < sensitivity.anchors["random_attribution"],
    )
    pictures = [row for f in found["interpretability"] for row in f.detail.get("pictures", [])]
    lines.add(
        "attribution maps of public images, beside the image and a random map",
        COMMAND,
        f"{sum(map(len, pictures))} pictures in {len(pictures)} rows: {', '.join(p['title'] for p in pictures[0])}",
        met=bool(pictures),
    )


def elsewhere(lines: Lines) -> None:
    words: dict[str, Mapping[str, Any]] = {}
    complete = True
    for name in ("breast-cancer", "digits", "parkinsons"):
        task = load_task(name)
        subject = Subject.outside(trained(task, "mlp", 20), task)
        findings = [
            f for group in run_assessors(subject, NAMES, rng_seed=0, tier="full").values() for f in group
        ]
        statuses = [f.status for f in findings]
        words[name] = {status: statuses.count(status) for status in sorted(set(statuses))}
        complete &= all(f.status == "measured" or len(f.reason or "") > 10 for f in findings)
        complete &= "failed" not in statuses
    lines.add(
        "what cannot be measured says why: a breast-cancer model, a digits model and a regression",
        COMMAND,
        "; ".join(f"{name}: {counts}" for name, counts in words.items()),
        met=complete,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, help="parameters of the MNIST network, from torch.save")
    given = parser.parse_args().model
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        lines = Lines(Path(name))
        known_truth(lines)
        peers(lines)
        elsewhere(lines)
        on_mnist(lines, given)
        sys.exit(lines.write("assess_explanations"))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "benchmarks"))
    main()
