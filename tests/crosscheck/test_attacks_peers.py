"""Attacks against foolbox and pyautoattack."""

import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedsafe.assess import Subject
from fedsafe.assess.robustness.assessor import Robustness
from fedsafe.assess.robustness.attacking import quick, run_attack
from fedsafe.assess.robustness.carlini_wagner import carlini_wagner
from fedsafe.assess.robustness.effort import FULL
from fedsafe.assess.robustness.gradient import climb
from fedsafe.assess.robustness.regions import Ball, Box
from fedsafe.assess.robustness.search import ascend, cross_entropy
from fedsafe.data import load_task
from fedsafe.models import build_model

pytestmark = pytest.mark.filterwarnings("ignore")
RADII = {"linf": 0.1, "l2": 0.8}


@pytest.fixture(scope="module")
def foolbox():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("foolbox", reason="foolbox is not there: make crosscheck installs it")


@pytest.fixture(scope="module")
def images():
    """A small random network on images, some of whose pixels lie at the bounds."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 10 * 10, 5)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    x = torch.rand(40, 1, 12, 12, generator=generator).mul(1.6).sub(0.3).clamp(0, 1)
    return model, x, model(x).argmax(dim=1)


def around(x, norm):
    kind = Box if norm == "linf" else Ball
    shape = x.shape[1:]
    return kind.around(
        x, RADII[norm], torch.zeros(shape), torch.ones(shape), torch.ones(shape, dtype=torch.bool)
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_is_that_of_foolbox(foolbox, images, norm):
    model, x, y = images
    attack = (
        foolbox.attacks.LinfFastGradientAttack if norm == "linf" else foolbox.attacks.L2FastGradientAttack
    )
    _, theirs, _ = attack()(
        foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=RADII[norm]
    )
    region = around(x, norm)
    ours = region.project(x + region.step(ascend(model, x, y, cross_entropy).gradient))
    assert float((ours - theirs).abs().max()) <= 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("share", [0.025, 0.2])
def test_pgd_without_a_random_start_is_that_of_foolbox(foolbox, images, norm, share):
    model, x, y = images
    attack = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    peer = attack(steps=15, abs_stepsize=2 * share * RADII[norm], random_start=False)
    _, theirs, _ = peer(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=RADII[norm])
    ours, rows = climb(model, x, y, around(x, norm), sizes=[share] * 15, loss=cross_entropy)
    assert len(rows) == len(x)
    assert float((ours - theirs).abs().max()) <= 1e-6


def test_the_nearest_errors_are_as_near_as_those_of_foolbox(foolbox, images):
    model, x, y = images
    peer = foolbox.attacks.L2CarliniWagnerAttack(steps=200, binary_search_steps=5)
    x, y = x[:16], y[:16]
    _, theirs, _ = peer(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=None)
    region = Ball.around(
        x, 12.0, torch.zeros(1, 12, 12), torch.ones(1, 12, 12), torch.ones(1, 12, 12, dtype=torch.bool)
    )
    ours = carlini_wagner(model, x, y, region, steps=30, restarts=4)
    far = [(found - x).flatten(1).norm(dim=1) for found in (ours, theirs)]
    assert bool((model(ours).argmax(dim=1) != y).all())
    assert float(far[0].median()) <= 1.03 * float(far[1].median())


@pytest.mark.needs_data
@pytest.mark.skipif(
    not (Path(os.environ.get("FEDSAFE_DATA_DIR", "/nonexistent")) / "mnist").is_dir(),
    reason="FEDSAFE_DATA_DIR does not name a folder with mnist",
)
@pytest.mark.timeout(3600)
def test_our_worst_case_is_at_most_one_point_above_autoattack():
    pytest.importorskip("pyautoattack", reason="pyautoattack is not there: make crosscheck installs it")
    task, radius = load_task("mnist-writers"), 0.1
    subject = Subject.outside(trained(task), task)
    effort = replace(FULL, examples=500, values=1 << 40, planted=0)
    findings = Robustness(full=effort, radii=(radius,), l2_radii=(), scales=())(
        subject, rng=np.random.default_rng(0), tier="full"
    )
    (worst,) = (finding for finding in findings if finding.where.get("attack") == "worst")
    examples = subject.evaluation.take(subject.shared_rows(500))
    found = run_attack(
        quick(subject, examples.x[:8]), examples, "autoattack", "linf", radius, 0, 1, np.random.default_rng(0)
    )
    assert not isinstance(found, str), found
    clean = subject.predict(examples.x) == examples.y
    theirs = float((clean & (subject.predict(found) == examples.y)).mean())
    assert 0.2 < theirs < 0.95
    assert worst.value <= theirs + 0.01


def trained(task):
    """The small network after one pass over MNIST."""
    model = build_model("cnn", signature=task.signature, seed=0)
    x, y = torch.tensor(task.train.x), torch.tensor(task.train.y)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).split(128):
        optimizer.zero_grad()
        functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return model.eval()
