"""What is measured of an explanation tells a true one from a random one, and from one that ignores the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import make_model, make_subject, make_task
from torch import nn

from fedsafe.assess import Subject
from fedsafe.assess.interpretability.assessor import Interpretability
from fedsafe.assess.interpretability.deletion import RemovalTest
from fedsafe.assess.interpretability.explainers import explain
from fedsafe.assess.interpretability.faithfulness import SubsetTest
from fedsafe.assess.interpretability.means import gini
from fedsafe.assess.interpretability.randomisation import randomisation, redrawn, stages

ZERO = np.zeros(6, np.float32)
SCOPE = {"where": {"explainer": "made"}}


def true(subject, n=60, name="integrated_gradients"):
    x = subject.evaluation.x[:n]
    return explain(subject, x, ZERO, 16, explainer=name, rng=np.random.default_rng(0))


def turned(explained):
    return replace(explained, local=-explained.local, attribution=-explained.attribution)


def subject_of(kind="binary", n=60, seed=0):
    model = make_model(kind, seed)
    if kind == "binary":  # a random network hardly answers: make its answers matter
        with torch.no_grad():
            model[3].weight.mul_(4.0)
    return make_subject(kind, model, make_task(kind, n))


def run(subject, tier="full", seed=0, **options):
    findings = Interpretability(**options)(subject, rng=np.random.default_rng(seed), tier=tier)
    return {
        (f.metric.removeprefix("interpretability."), f.where["explainer"], f.where["baseline"]): f
        for f in findings
    }


def test_gini_is_the_mean_difference_over_twice_the_mean():
    values = np.abs(np.random.default_rng(0).normal(size=(4, 7)))
    slow = [np.abs(row[:, None] - row[None]).mean() / (2 * row.mean()) for row in values]
    assert gini(values) == pytest.approx(slow)
    assert gini(np.array([[3.0, 3, 3, 3], [0, -5, 0, 0], [0, 0, 0, 0]])) == pytest.approx([0, 0.75, 0])


def test_deletion_and_insertion_equal_a_loop():
    subject = subject_of(n=40)
    explained = true(subject, 40)
    test = RemovalTest(subject, explained.x.numpy(), ZERO, np.random.default_rng(0))
    deletion, insertion = test.findings(explained, np.random.default_rng(0), SCOPE)
    groups = [[0], [1], [2], [3], [4, 5]]
    areas = {"deletion": [], "insertion": []}
    for x, attribution in zip(explained.x.numpy(), explained.attribution, strict=True):
        sign = 1.0 if subject.logits(x[None])[0, 0] > 0 else -1.0
        order = np.argsort([-sign * attribution[group].sum() for group in groups], kind="stable")
        for name, areas_of in areas.items():
            curve = []
            for gone in range(6):
                point = x.copy() if name == "deletion" else ZERO.copy()
                for column in order[:gone]:
                    point[groups[column]] = 0.0 if name == "deletion" else x[groups[column]]
                curve.append(1 / (1 + np.exp(-sign * subject.logits(point[None])[0, 0])))
            areas_of.append(np.trapezoid(curve, np.arange(6) / 5))
    assert deletion.value == pytest.approx(np.mean(areas["deletion"]), abs=1e-6)
    assert insertion.value == pytest.approx(np.mean(areas["insertion"]), abs=1e-6)
    assert [point["share"] for point in deletion.detail["curve"]] == pytest.approx(np.arange(6) / 5)


def test_deletion_tells_a_true_explanation_from_a_random_and_from_a_turned_one():
    subject = subject_of()
    explained = true(subject)
    test = RemovalTest(subject, explained.x.numpy(), ZERO, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    deletion, insertion = test.findings(explained, rng, SCOPE)
    worst, least = test.findings(turned(explained), rng, SCOPE)
    assert deletion.interval[1] < deletion.anchors["random_attribution"] < worst.interval[0]
    assert least.interval[1] < insertion.anchors["random_attribution"] < insertion.interval[0]
    number = subject_of("regression")
    test = RemovalTest(number, number.evaluation.x[:40], ZERO, rng)
    assert {f.status for f in test.findings(true(number, 40), rng, SCOPE)} == {"not_applicable"}


def test_faithfulness_of_a_linear_models_attributions_is_one(linear, inputs, judged):
    x = inputs(60)
    subject = judged(linear([1.0, -2.0, 0.5, 0.0, 0.3, -0.4], 0.2), x, np.ones(60, dtype=np.int64))
    explained, rng = true(subject), np.random.default_rng(0)
    test = SubsetTest(subject, explained.x, ZERO, explained.target, subsets=40, rng=rng)
    random = rng.standard_normal(explained.attribution.shape)
    correlation, rest = test.findings(explained.attribution, random, rng, SCOPE)
    assert correlation.value == pytest.approx(1, abs=1e-6)
    assert rest.value < 1e-9
    assert abs(correlation.anchors["random_attribution"]) < 0.3
    assert rest.anchors["random_attribution"] > 1.0
    assert test.findings(-explained.attribution, random, rng, SCOPE)[0].value == pytest.approx(-1, abs=1e-6)


class Product(nn.Module):
    def forward(self, x):
        return (x[:, :4] * x[:, 1:5]).sum(dim=1, keepdim=True)


def test_faithfulness_equals_its_definition():
    subject = make_subject("binary", Product(), make_task("binary", 60))
    explained, rng = true(subject, name="gradient"), np.random.default_rng(3)
    test = SubsetTest(subject, explained.x, ZERO, explained.target, subsets=30, rng=np.random.default_rng(4))
    found, _ = test.findings(explained.attribution, explained.attribution, rng, SCOPE)
    again = np.random.default_rng(4)
    ranks = np.argsort(again.random((30, 5)), axis=1)
    removed = ranks < again.integers(1, 5, size=(30, 1))
    features = removed[:, [0, 1, 2, 3, 4, 4]]
    values = []
    for x, attribution in zip(explained.x.numpy(), explained.attribution, strict=True):
        whole = subject.logits(x[None])[0, 0]
        lost = [whole - subject.logits(np.where(mask, ZERO, x)[None])[0, 0] for mask in features]
        values.append(np.corrcoef(lost, features @ attribution)[0, 1])
    assert found.value == pytest.approx(np.mean(values), abs=1e-5)


def input_alone(forward, x, baseline, target, **options):
    return torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).expand_as(x)


def at_random(forward, x, baseline, target, *, rng, **options):
    # Differs from point to point, whatever the seed.
    seeds = (x.sum(dim=1) * 1e6).long().abs().tolist()
    return torch.stack([torch.randn(6, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@pytest.fixture(scope="module")
def judged_explainers():
    names = ("integrated_gradients", f"{__name__}:input_alone", f"{__name__}:at_random")
    return run(subject_of(), explainers=names, full=("occlusion",))


def test_sensitivity_tells_a_smooth_explanation_from_a_random_one(judged_explainers, linear, inputs, judged):
    smooth, constant, random = (
        judged_explainers["sensitivity_max", name, "zero"]
        for name in ("integrated_gradients", f"{__name__}:input_alone", f"{__name__}:at_random")
    )
    assert constant.value == 0.0
    assert smooth.interval[1] < 0.2
    # Two independent draws differ by the root of two times their size, and the largest of several by more.
    assert smooth.anchors["random_attribution"] > 1.3
    assert random.interval[0] > 1.2
    found = run(
        judged(linear([1.0, -2.0, 0.5, 0.1, 0.3, -0.4], 0.2), inputs(40), np.ones(40, np.int64)), full=()
    )
    assert found["sensitivity_max", "integrated_gradients", "zero"].value < 1e-5


def test_randomisation_finds_an_explanation_that_ignores_the_model(judged_explainers):
    own = judged_explainers["randomisation_similarity", "integrated_gradients", "zero"]
    blind = judged_explainers["randomisation_similarity", f"{__name__}:input_alone", "zero"]
    assert blind.value == pytest.approx(1.0)
    assert own.value < 0.7
    assert own.interval[0] < own.value < own.interval[1]
    assert [point["layers"] for point in own.detail["curve"]] == [0, 1, 2]
    assert own.detail["curve"][0]["similarity"] == 1.0
    assert "occlusion" in own.anchors


def once(forward, x, baseline, target, **options):
    if not torch.equal(x[:1], once.first):
        raise RuntimeError("not these")
    return torch.ones_like(x)


def test_a_users_explainer_that_fails_on_variants_fails_in_those_findings_alone():
    subject = subject_of(n=40)
    once.first = torch.tensor(subject.evaluation.x[:1])
    name = f"{__name__}:once"
    found = run(subject, explainers=(name,), full=())
    failed = {key[0] for key, f in found.items() if f.status == "failed"}
    assert failed == {"sensitivity_max"}  # randomisation explains the same examples
    assert "not these" in found["sensitivity_max", name, "zero"].reason


def test_randomised_parameters_are_new_and_the_model_keeps_its_own():
    model = nn.Sequential(nn.Linear(3, 3), nn.PReLU(), nn.Linear(3, 1)).eval()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = redrawn(model, ["2"], np.random.default_rng(0))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    assert torch.equal(found[0].weight, model[0].weight)
    assert not torch.equal(found[2].weight, model[2].weight)
    assert not found.training
    assert stages(model) == 2


class Custom(nn.Module):
    """Parameters without an initialisation of their own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(6.0))

    def forward(self, x):
        return (x * self.weight).sum(dim=1, keepdim=True)


def test_parameters_without_an_initialisation_are_shuffled_and_a_model_without_any_is_not_applicable():
    found = redrawn(Custom(), [""], np.random.default_rng(0))
    assert found.weight.tolist() != list(range(6))
    assert sorted(found.weight.tolist()) == list(range(6))
    subject = make_subject("binary", Product(), make_task("binary", 60))
    options = {"explainer": "gradient", "models": 3, "rng": np.random.default_rng(0), "context": SCOPE}
    assert randomisation(subject, true(subject), ZERO, 8, **options).status == "not_applicable"


def test_occlusion_is_beside_every_other_in_the_cheap_tier_too():
    found = run(subject_of(), tier="cheap")
    assert {name for _, name, _ in found} == {"integrated_gradients"}
    infidelity = found["infidelity", "integrated_gradients", "midpoint"]
    assert set(infidelity.anchors) == {"random_attribution", "zero_attribution", "occlusion"}
    sparse = found["sparseness", "integrated_gradients", "zero"]
    assert 0 < sparse.value < 0.8


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_the_full_plan_covers_what_is_spent(monkeypatch, kind):
    subject, spent = subject_of(kind, 64), []
    forward = Subject.forward
    monkeypatch.setattr(Subject, "forward", lambda self, x: spent.append(len(x)) or forward(self, x))
    slow = () if kind == "multiclass" else ("kernel_shap",)  # of 49 patches, one example after the other
    assessor = Interpretability(full=("gradient_shap", *slow, "occlusion"))
    planned = assessor.plan(subject, "full")
    assert not spent
    found = assessor(subject, rng=np.random.default_rng(0), tier="full")
    assert sum(spent) <= planned.forward <= 2 * sum(spent)
    assert {f.status for f in found} <= {"measured", "not_applicable", "insufficient"}


def test_pictures_are_of_public_images_alone():
    subject = subject_of("multiclass", 40)
    found = run(subject, full=("occlusion",))
    shown = [f for f in found.values() if "pictures" in f.detail]
    assert [f.metric for f in shown] == ["interpretability.sparseness"] * 2
    rows = shown[0].detail["pictures"]
    titles = [["example", "integrated gradients", "occlusion", "random"]] * 3
    assert [[picture["title"] for picture in row] for row in rows] == titles
    assert {picture["scale"] for row in rows for picture in row[1:]} == {"signed"}
    assert rows[0][0]["note"].split()[-1] in subject.task.classes
    private = replace(subject, released="all of it")
    assert not any("pictures" in f.detail for f in run(private, full=()).values())
    assert not any("pictures" in f.detail for f in run(subject, tier="cheap").values())
