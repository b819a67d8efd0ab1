"""Explanations and their quality, held to captum's own calls, and to the packages shap and lime."""

import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from captum.attr import GradientShap, IntegratedGradients
from captum.metrics import infidelity, sensitivity_max
from torch import nn

from fedsafe.assess import Subject
from fedsafe.assess.interpretability.explainers import Explained, explain
from fedsafe.assess.interpretability.infidelity import NoiseTest
from fedsafe.assess.interpretability.sensitivity import sensitivity
from fedsafe.data import as_task
from fedsafe.findings import t_interval

SCOPE = {"where": {"explainer": "made"}}

needs_shap = pytest.mark.skipif(find_spec("shap") is None, reason="shap is not installed: make crosscheck")
needs_lime = pytest.mark.skipif(find_spec("lime") is None, reason="lime is not installed: make crosscheck")


def made(columns: int, *, linear: bool = False) -> Subject:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (200, columns)).astype(np.float32)
    task = as_task(
        (x, rng.integers(0, 3, 200)),
        low=0.0,
        high=1.0,
        evaluation=(x[:60], rng.integers(0, 3, 60)),
        classes=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Linear(columns, 3)] if linear else [nn.Linear(columns, 16), nn.Tanh(), nn.Linear(16, 3)]
    model = nn.Sequential(*layers).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return Subject.outside(model, task)


def ours(subject: Subject, name: str, baseline: np.ndarray, n: int = 40) -> Explained:
    x = subject.evaluation.x[:n]
    return explain(subject, x, baseline, 32, explainer=name, rng=np.random.default_rng(0))


def test_integrated_gradients_equal_captums_own_call():
    subject, baseline = made(8), np.full(8, 0.5, np.float32)
    explained = ours(subject, "integrated_gradients", baseline)
    theirs = IntegratedGradients(subject.model).attribute(
        explained.x, baselines=torch.tensor(baseline[None]), target=explained.target, n_steps=32
    )
    assert np.abs(explained.attribution - theirs.detach().numpy()).max() < 1e-6


@pytest.mark.parametrize("normalise", [False, True])
def test_infidelity_equals_captums_own_call_on_the_same_noise(normalise):
    subject = made(8)
    explained = ours(subject, "integrated_gradients", np.zeros(8, np.float32))
    test = NoiseTest(
        subject, explained.x, explained.target, scale=0.1, draws=12, rng=np.random.default_rng(5)
    )
    seed = int(np.random.default_rng(5).integers(2**63))
    generator = torch.Generator().manual_seed(seed)

    def perturb(inputs):
        noise = 0.1 * torch.randn(inputs.shape, generator=generator)
        return noise, inputs - noise

    theirs = infidelity(
        subject.model,
        perturb,
        explained.x,
        explained.local,
        target=explained.target,
        n_perturb_samples=12,
        normalize=normalise,
    )
    found = test.score(explained.local, normalise=normalise)
    assert found == pytest.approx(theirs.detach().numpy(), rel=1e-4, abs=1e-7)


def test_max_sensitivity_equals_captums_own_call_on_the_same_noise():
    subject, baseline = made(8), np.zeros(8, np.float32)
    explained = ours(subject, "integrated_gradients", baseline)
    rng = np.random.default_rng(7)
    found = sensitivity(
        subject,
        explained.x,
        explained.target,
        baseline,
        32,
        explainer="integrated_gradients",
        draws=6,
        radius=0.02,
        rng=rng,
        context=SCOPE,
    )
    again = np.random.default_rng(7)
    again.integers(2**63)
    generator = torch.Generator().manual_seed(int(again.integers(2**63)))

    def nearby(inputs):
        return (inputs + 0.02 * (2 * torch.rand(inputs.shape, generator=generator) - 1)).clamp(0, 1)

    theirs = sensitivity_max(
        IntegratedGradients(subject.model, multiply_by_inputs=False).attribute,
        explained.x,
        nearby,
        n_perturb_samples=6,
        max_examples_per_batch=len(explained.x),
        baselines=torch.tensor(baseline[None]),
        target=explained.target,
        n_steps=32,
    )
    assert found.value == pytest.approx(float(theirs.mean()), rel=1e-5)


def test_captums_gradient_shap_is_the_closed_form_within_its_sampling_error():
    subject = made(8, linear=True)
    x, background = torch.tensor(subject.evaluation.x[:1]), torch.tensor(subject.evaluation.x)
    weight = subject.model[0].weight.detach()
    truth = (weight[0] * (x[0] - background.mean(dim=0))).numpy()
    draws = []
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        for seed in range(40):
            np.random.seed(seed)  # noqa: NPY002
            found = GradientShap(subject.model).attribute(x, baselines=background, target=0, n_samples=50)
            draws.append(found[0].detach().numpy())
    np.random.set_state(state)  # noqa: NPY002
    for column in range(8):
        low, high = t_interval([draw[column] for draw in draws], 0.999)
        assert low < truth[column] < high
    # With the mean of the background as its baseline, ours has no sampling error on a linear model.
    mean = background.mean(dim=0).numpy()
    explained = ours(subject, "gradient_shap", mean)
    weights = weight.numpy()[explained.target.numpy()]
    assert explained.attribution == pytest.approx(weights * (explained.x.numpy() - mean), abs=1e-5)


@needs_shap
def test_kernel_shap_of_few_columns_equals_the_shap_packages():
    subject, baseline = made(7), np.full(7, 0.5, np.float32)
    found, theirs = (ours(subject, name, baseline, 10) for name in ("kernel_shap", "shap_library"))
    assert found.attribution == pytest.approx(theirs.attribution, abs=1e-4)
    assert found.gap == pytest.approx(np.zeros(10), abs=1e-5)


@needs_shap
def test_kernel_shap_of_more_columns_is_near_the_exact_values():
    subject, baseline = made(13), np.full(13, 0.5, np.float32)
    found = ours(subject, "kernel_shap", baseline, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap
    errors, sizes = [], []
    for row in range(10):
        target = int(found.target[row])

        def outputs(x, target=target):
            return subject.logits(np.asarray(x, np.float32))[:, target]

        exact = shap.KernelExplainer(outputs, baseline[None]).shap_values(
            found.x[row].numpy(), nsamples=2**13, silent=True, l1_reg=False
        )
        errors.append(found.attribution[row] - exact)
        sizes.append(exact)
    assert np.linalg.norm(errors) < 0.1 * np.linalg.norm(sizes)


@needs_lime
def test_captums_lime_and_the_lime_package_agree_up_to_their_samples():
    subject, baseline = made(13), np.zeros(13, np.float32)
    found, theirs = (ours(subject, name, baseline, 10).attribution for name in ("lime", "lime_library"))
    assert np.corrcoef(found.ravel(), theirs.ravel())[0, 1] > 0.97
