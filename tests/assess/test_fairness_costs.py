"""Who pays for privacy: each group's accuracy beside a reference model, in pairs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from kinds_of_task import make_model, make_subject
from safetensors.numpy import save_file
from torch import nn

from fedsafe.assess import find_assessor
from fedsafe.assess.fairness.assessor import Fairness
from fedsafe.assess.fairness.costs import costs_by_group, paired_difference
from fedsafe.assess.fairness.reference import with_reference
from fedsafe.errors import ConfigError
from fedsafe.store import RunFolder


def better():
    """A reference that anybody may name by import path."""
    return make_model("binary", 3)


def not_a_model():
    return 7


def vector(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().numpy()


def run_folder(path: Path, parameters: np.ndarray) -> Path:
    folder = RunFolder.create(path, "")
    for number, values in ((1, np.zeros_like(parameters)), (2, parameters)):
        folder.write_checkpoint(number, {"parameters": values}, {"sequence": "0"})
    return path


def named(kind, tmp_path):
    model = better()
    if kind == "run":
        return str(run_folder(tmp_path / "run", vector(model)))
    if kind == "checkpoint":
        return str(run_folder(tmp_path / "run", vector(model)) / "checkpoints" / "round-00002.safetensors")
    if kind == "state":
        path = tmp_path / "model.safetensors"
        save_file({name: tensor.numpy() for name, tensor in model.state_dict().items()}, path)
        return str(path)
    return "test_fairness_costs:better"


@pytest.mark.parametrize("kind", ["run", "checkpoint", "state", "import path"])
def test_a_reference_is_a_run_a_file_or_an_import_path(kind, tmp_path):
    subject = make_subject("binary")
    x = subject.evaluation.x
    found = with_reference(subject, named(kind, tmp_path))
    with torch.no_grad():
        expected = better()(torch.tensor(x)).double().numpy()
    assert found.logits(x) == pytest.approx(expected)
    assert not np.array_equal(subject.logits(x), found.logits(x))


def test_a_reference_that_is_none_is_one_line(tmp_path):
    subject = make_subject("binary")
    with pytest.raises(ConfigError, match=r"the reference 'runs/nowhere' is not there: give a run folder"):
        Fairness(reference="runs/nowhere")
    with pytest.raises(ConfigError, match=r"cannot be made.*is not there"):
        find_assessor({"name": "fairness", "reference": "runs/nowhere"})
    other = run_folder(tmp_path / "other", np.zeros(5, np.float32))
    with pytest.raises(ConfigError, match="has 5 parameters and the model 65: it is of another model"):
        with_reference(subject, str(other))
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "small.safetensors")
    with pytest.raises(ConfigError, match=r"is of another model: .*Missing key"):
        with_reference(subject, str(tmp_path / "small.safetensors"))
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(ConfigError, match="is no safetensors file"):
        with_reference(subject, str(tmp_path / "text.safetensors"))
    RunFolder.create(tmp_path / "new", "")
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        with_reference(subject, str(tmp_path / "new"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"the reference cannot be read: .* is not a run folder"):
        with_reference(subject, str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"gave a int, not a torch\.nn\.Module"):
        with_reference(subject, "test_fairness_costs:not_a_model")


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_every_group_is_compared_with_the_reference(kind, tmp_path):
    subject = make_subject(kind)
    reference = str(run_folder(tmp_path / "run", vector(make_model(kind, 3))))
    assessor = Fairness(reference=reference)
    found = assessor(subject, rng=np.random.default_rng(0), tier="cheap")
    name = "absolute_error" if kind == "regression" else "accuracy"
    costs = {f.where["group"]: f for f in found if f.metric == f"fairness.{name}_cost"}
    rates = {f.where["group"]: f.value for f in found if f.metric == f"fairness.{name}"}
    other = Fairness()(with_reference(subject, reference), rng=np.random.default_rng(0), tier="cheap")
    theirs = {f.where["group"]: f.value for f in other if f.metric == f"fairness.{name}"}
    sign = -1 if kind == "regression" else 1
    assert set(costs) == {"Female", "Male"}
    for group, cost in costs.items():
        assert cost.value == pytest.approx(sign * (theirs[group] - rates[group]), abs=1e-9)
        assert cost.interval[0] <= cost.value <= cost.interval[1]
    (gap,) = (f for f in found if f.metric == f"fairness.{name}_cost_difference")
    assert gap.value == pytest.approx(abs(costs["Female"].value - costs["Male"].value))
    assert gap.detail["pays_most"] == max(costs, key=lambda group: costs[group].value)
    assert [row["group"] for row in gap.detail["table"]] == ["Female", "Male"]
    plain, planned = (Fairness(reference=r).plan(subject, "cheap").forward for r in ("", reference))
    assert planned == plain + len(subject.evaluation)


def pairs(rng, n, right, other, together=0.8):
    """Answers of two models that mostly agree: `together` of the records are as hard for both."""
    hard = rng.random(n)
    again = np.where(rng.random(n) < together, hard, rng.random(n))
    return hard < right, again < other


def test_a_paired_interval_covers_and_is_narrower_than_one_without_pairs():
    rng, inside, widths = np.random.default_rng(0), 0, []
    for _ in range(1000):
        first, second = pairs(rng, 120, 0.85, 0.8)
        low, high = paired_difference(first, second)
        inside += low <= 0.05 <= high
        widths.append(high - low)
    assert 930 <= inside <= 975
    assert np.mean(widths) < 0.75 * 2 * 1.96 * np.sqrt((0.85 * 0.15 + 0.8 * 0.2) / 120)


def test_a_paired_interval_equals_a_published_one():
    # Newcombe (1998), 36 pairs with both, 12 and 2 with one, 0 with none.
    first, second = (np.repeat(answers, [36, 12, 2, 0]) for answers in ([1, 1, 0, 0], [1, 0, 1, 0]))
    assert paired_difference(first > 0, second > 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_a_planted_cost_of_one_group_is_found_and_an_equal_one_shows_no_difference():
    rng, groups, runs = np.random.default_rng(1), np.repeat(["a", "b", "c"], [200, 400, 800]), 200
    unfit = dict.fromkeys("abc", "")

    def cost(drops):
        parts = [pairs(rng, n, 0.9 - d, 0.9) for n, d in zip([200, 400, 800], drops, strict=True)]
        own, other = (np.concatenate([part[side] for part in parts]).astype(float) for side in (0, 1))
        *single, gap = costs_by_group(
            own, other, groups, unfit, "site", name="plain", resamples=400, rng=rng, context={"data": "made"}
        )
        return single, gap

    equal = [cost([0.1] * 3)[1] for _ in range(runs)]
    assert np.mean([gap.interval[0] == 0 for gap in equal]) >= 0.92
    debiased = np.array([gap.detail["debiased"] for gap in equal])
    assert abs(debiased.mean()) < 4 * debiased.std() / np.sqrt(runs)
    assert np.mean([gap.value for gap in equal]) == pytest.approx(
        np.mean([gap.anchors["null_gap"] for gap in equal]), rel=0.1
    )
    single, gap = cost([0.3, 0.05, 0.05])
    assert gap.detail["pays_most"] == "a"
    assert gap.interval[0] > 0.1
    assert gap.interval[0] <= 0.25 <= gap.interval[1]
    assert single[0].interval[0] > 0.2


def test_a_group_that_is_too_small_pays_nothing_that_could_be_measured():
    groups = np.repeat(["a", "b"], [100, 5])
    *single, gap = costs_by_group(
        np.ones(105), np.ones(105), groups, {"a": "", "b": "too few"}, "site", name="plain", resamples=200,
        rng=np.random.default_rng(0), context={"data": "made"},
    )  # fmt: skip
    assert [f.status for f in single] == ["measured", "insufficient"]
    assert (gap.status, gap.reason) == ("insufficient", "1 of 2 groups are large enough, a gap needs 2")


def test_the_same_model_costs_nothing_and_is_not_sure_of_it():
    groups = np.repeat(["a", "b"], 100)
    right = np.ones(200)
    found = costs_by_group(
        right, right, groups, {"a": "", "b": ""}, "site", name="itself", resamples=200,
        rng=np.random.default_rng(0), context={"data": "made"},
    )  # fmt: skip
    assert {f.value for f in found} == {0.0}
    assert all(f.interval[1] > 0.01 for f in found)
