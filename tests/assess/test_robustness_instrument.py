"""The instrument checks itself: curves against slow oracles, masked gradients, flips, evidence, pictures."""

import builtins
import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import make_model, make_subject, make_task
from torch import nn

from fedsafe.assess.robustness.assessor import Robustness
from fedsafe.assess.robustness.attacking import distances, quick
from fedsafe.assess.robustness.categorical import broken_rules, flip_columns, mutable_groups
from fedsafe.assess.robustness.curve import Curve, Nearest, Target
from fedsafe.assess.robustness.effort import Effort
from fedsafe.assess.robustness.nearest import find_nearest, median_distance
from fedsafe.data import Categorical, Label, Numeric, Schema
from fedsafe.errors import ConfigError

SMALL = Effort(
    examples=120,
    steps=8,
    restarts=2,
    own={"square": (150, 1), "cw-l2": (20, 3), "apgd-ce": (15, 1), "apgd-t": (8, 1)},
    checked=40,
    planted=6,
)


def run(subject, tier="full", **options):
    options = {
        "full": SMALL,
        "cheap": SMALL,
        "radii": (0.05, 0.15, 0.4),
        "l2_radii": (),
        "scales": (),
        **options,
    }
    return Robustness(**options)(subject, rng=np.random.default_rng(0), tier=tier)


def attacked(findings):
    return {
        (f.where["attack"], f.where["norm"], f.where["radius"]): f
        for f in findings
        if f.metric == "robustness.attacked_accuracy"
    }


class Before(nn.Module):
    """A model behind a function of its inputs."""

    def __init__(self, model, function):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x):
        return self.model(self.function(x))


class Linear64(nn.Module):
    """Three linear classes of 8 x 8 images, all of which occur."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.layer = nn.Linear(64, 3, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(3, 64, generator=generator))
        self.shift = nn.Parameter(torch.full((64,), 0.35))

    def forward(self, x):
        return self.layer(x.flatten(1) - self.shift)


def right(model):
    """A subject on which the model makes no error."""
    subject = make_subject("multiclass", model)
    evaluation = replace(subject.evaluation, y=subject.predict(subject.evaluation.x))
    assert len(np.unique(evaluation.y)) == 3
    return replace(subject, evaluation=evaluation, shards=None)


def rounded(x):
    return torch.round(x * 16) / 16


def flat(x):
    """Zero slope around every value that occurs, and a step between."""
    return torch.where(x > 0.5, 1.0, 0.2) + 0.0 * torch.relu(-x - 9)


@pytest.mark.parametrize("function", [rounded, flat], ids=["quantised", "plateau"])
def test_a_model_without_useful_gradients_is_not_called_robust(function):
    found = attacked(run(right(Before(Linear64(), function))))
    for name in ("pgd", "apgd-ce", "apgd-t"):
        assert {f.status for (attack, _, _), f in found.items() if attack == name} == {"unreliable"}
    worst = found["worst", "linf", 0.15]
    assert worst.status == "unreliable" or worst.value < 0.05
    assert any(f.status == "unreliable" for (attack, _, _), f in found.items() if attack == "worst")
    reasons = " ".join(f.reason or "" for f in found.values())
    assert "planted adversarials" in reasons
    assert "values of other records are counterexamples" in reasons


@pytest.mark.parametrize("tier", ["cheap", "full"])
def test_one_step_without_a_gradient_is_no_measurement(tier):
    hidden = attacked(run(right(Before(Linear64(), torch.detach)), tier, attacks=("fgsm",), full_attacks=()))
    assert all(hidden["fgsm", "linf", radius].status == "unreliable" for radius in (0.05, 0.15, 0.4))
    assert "no gradient to follow" in hidden["fgsm", "linf", 0.4].reason
    shown = attacked(run(right(Linear64()), tier, attacks=("fgsm",), full_attacks=()))
    assert shown["fgsm", "linf", 0.4].status == "measured"


def test_the_same_model_with_its_gradients_is_measured():
    findings = run(right(Linear64()))
    assert {f.status for f in findings} == {"measured"}
    unbounded = next(f for f in findings if f.metric == "robustness.unbounded_accuracy")
    assert unbounded.value == 0.0
    curve = unbounded.detail["curve"]
    assert [point["radius"] for point in curve] == [0.0, 0.05, 0.15, 0.4]
    assert curve[0]["accuracy"] == 1.0
    assert all(point["low"] <= point["accuracy"] <= point["high"] for point in curve)


def test_logits_scaled_by_ten_thousand_hide_nothing():
    class Scaled(Linear64):
        def forward(self, x):
            return 1e4 * super().forward(x)

    plain, scaled = (attacked(run(right(model))) for model in (Linear64(), Scaled()))
    for radius in (0.05, 0.15, 0.4):
        place = ("worst", "linf", radius)
        assert scaled[place].status == "unreliable" or scaled[place].value <= plain[place].value + 0.01


def test_what_is_tried_on_the_remaining_equals_trying_everywhere():
    subject = right(Linear64())
    effort = Effort(examples=120, steps=8, restarts=1)
    examples = subject.evaluation.take(np.arange(120))
    target = Target(
        subject=subject,
        quick=quick(subject, examples.x[:4]),
        examples=examples,
        clean=np.ones(120, bool),
        effort=effort,
        rng=np.random.default_rng(0),
    )
    everywhere, remaining = (Curve.over(target, "linf", (0.02, 0.05, 0.1, 0.2)) for _ in range(2))
    everywhere.everywhere(target, ("pgd",))
    remaining.remaining(target, "pgd")
    assert np.array_equal(everywhere.stands["pgd"], remaining.stands["pgd"])
    assert 0.05 < everywhere.worst.mean() < 0.95


def test_evidence_is_example_by_example_and_falls_with_the_radius():
    subject = make_subject("multiclass", Linear64())
    found = attacked(run(subject, l2_radii=(0.3, 0.8)))
    rows = subject.shared_rows(120)
    clean = subject.predict(subject.evaluation.x[rows]) == subject.evaluation.y[rows]
    for (attack, norm, _), finding in found.items():
        if finding.status != "measured":
            continue
        assert np.array_equal(finding.evidence.rows, rows)
        assert finding.value == finding.evidence.holds.mean()
        assert not (finding.evidence.holds & ~clean).any()
        worst = found["worst", norm, finding.where["radius"]]
        assert not (worst.evidence.holds & ~finding.evidence.holds).any()
        assert worst.value <= finding.value, attack
    for norm, radii in (("linf", (0.05, 0.15, 0.4)), ("l2", (0.3, 0.8))):
        for small, large in itertools.pairwise(radii):
            held = [found["worst", norm, radius].evidence.holds for radius in (small, large)]
            assert not (held[1] & ~held[0]).any()


def test_the_table_says_what_each_attack_did():
    worst = attacked(run(make_subject("multiclass", Linear64())))["worst", "linf", 0.15]
    table = worst.detail["table"]
    assert [row["attack"] for row in table] == ["fgsm", "pgd", "apgd-ce", "apgd-t", "square"]
    assert [row["alone"] for row in table] == [True, True, False, False, False]
    later = [row["accuracy"] for row in table if not row["alone"]]
    assert later == sorted(later, reverse=True)
    assert worst.value == later[-1]
    assert worst.detail["counted"].startswith("the worst")


def test_the_median_distance_is_that_of_a_linear_model():
    subject = right(Linear64())
    low, high = -5.0, 5.0  # far away, so that the bounds do not matter
    task = subject.task
    schema = replace(task.schema, lowest=low, highest=high)
    subject = replace(subject, task=replace(task, schema=schema))
    (finding,) = (f for f in run(subject) if f.metric == "robustness.median_distance")
    weight = subject.model.layer.weight.detach().numpy().astype(np.float64)
    rows = subject.shared_rows(120)
    x, y = subject.evaluation.x[rows].reshape(120, -1), subject.evaluation.y[rows]
    logits = subject.logits(subject.evaluation.x[rows])
    each = np.stack(
        [
            (logits[np.arange(len(x)), y] - logits[:, other])
            / np.maximum(np.linalg.norm(weight[y] - weight[other], axis=1), 1e-9)
            for other in range(3)
        ]
    )
    each[y, np.arange(len(x))] = np.inf
    exact = np.median(each.min(axis=0))
    assert exact <= finding.value <= 1.03 * exact
    assert finding.interval[0] < finding.value < finding.interval[1]
    assert finding.bound == "upper"
    assert finding.detail["quantiles"]
    (private,) = (f for f in run(replace(subject, released="figures")) if f.metric == finding.metric)
    assert "quantiles" not in private.detail


def test_a_nearest_error_that_is_not_found_is_not_a_distance():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 3) * torch.tensor([1.0, 0.0, 0.0])

    subject = make_subject("multiclass", Constant())
    findings = run(subject)
    (distance,) = (f for f in findings if f.metric == "robustness.median_distance")
    assert (distance.status, distance.value) == ("insufficient", None)
    assert {f.status for f in attacked(findings).values()} == {"measured"}


def test_distances_that_were_not_reached_are_no_quantiles():
    subject = make_subject("multiclass", Linear64())
    clean = np.zeros(len(subject.evaluation), bool)
    clean[:41] = True
    target = Target(
        subject=subject,
        quick=subject,
        examples=subject.evaluation,
        clean=clean,
        effort=SMALL,
        rng=np.random.default_rng(0),
    )
    far = np.zeros(len(clean))
    far[:41] = np.where(
        np.arange(41) <= 30, np.arange(41) / 10, np.inf
    )  # the quarter farthest is not reached
    finding = median_distance(target, "cw-l2", Nearest(points=subject.evaluation.x, distances=far, broken=""))
    assert (finding.value, finding.detail["found"]) == (2.0, 31)
    told = {each["share"]: each["distance"] for each in finding.detail["quantiles"]}
    finite = {share: value for share, value in told.items() if value is not None}
    assert finite == pytest.approx(
        {share: np.quantile(np.arange(41) / 10, share) for share in (0.05, 0.1, 0.25, 0.5, 0.75)}
    )
    assert [share for share, value in told.items() if value is None] == [0.9, 0.95]


def test_pictures_are_drawn_of_public_images_alone_and_in_the_full_tier():
    subject = make_subject("multiclass", Linear64())
    drawn = [f for f in run(subject) if "pictures" in f.detail]
    assert {f.where["attack"] for f in drawn} == {"worst"}
    rows = drawn[0].detail["pictures"]
    assert 1 <= len(rows) <= 6
    assert all(len(row) == 3 and row[1]["scale"] == "signed" for row in rows)
    assert abs(rows[0][1]["high"]) <= 0.4 + 1e-6
    private = replace(subject, released="figures")
    for findings in (run(private), run(subject, tier="cheap")):
        assert not any("pictures" in f.detail for f in findings)


COLUMNS = (
    Numeric(name="a", low=0, high=1),
    Categorical(name="job", categories=("x", "y", "z"), unknown="x"),
    Categorical(name="town", categories=("p", "q"), unknown="p"),
    Categorical(name="sex", categories=("f", "m"), unknown="f", immutable=True),
    Numeric(name="age", low=0, high=90, bins=(30, 60), encoding="bins"),
)


@pytest.fixture
def table():
    """A network on a table with three one-hot columns that may change, and one that may not."""
    schema = Schema(label=Label(column="y", classes=("no", "yes")), columns=COLUMNS)
    task = make_task("binary", 60)
    rng = np.random.default_rng(0)
    parts = [rng.random((60, 1))] + [np.eye(width)[rng.integers(0, width, 60)] for width in (3, 2, 2, 3)]
    x = np.concatenate(parts, axis=1).astype(np.float32)
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(11, 16), nn.Tanh(), nn.Linear(16, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    evaluation = replace(task.evaluation, x=x, groups={})
    task = replace(task, schema=schema, train=replace(evaluation), evaluation=evaluation)
    subject = replace(
        make_subject("binary"),
        model=model.eval(),
        task=task,
        evaluation=evaluation,
        **dict.fromkeys(("shards", "training", "validation", "unseen", "federation", "previous")),
    )
    y = subject.predict(x)
    return replace(subject, evaluation=replace(evaluation, y=y))


def brute_force(subject, columns):
    """Whether each record withstands every combination of so many changed columns."""
    groups, x = mutable_groups(subject), subject.evaluation.x
    stands = np.ones(len(x), bool)
    for chosen in itertools.combinations(groups, columns):
        for values in itertools.product(*chosen):
            changed = x.copy()
            for group, value in zip(chosen, values, strict=True):
                changed[:, list(group)] = 0
                changed[:, value] = 1
            stands &= subject.predict(changed) == subject.evaluation.y
    return stands


def test_flips_are_the_exact_worst_for_one_column_and_no_better_than_it_for_more(table):
    groups = mutable_groups(table)
    assert [len(group) for group in groups] == [3, 2, 3]
    findings = [f for f in run(table, radii=(), flips=(1, 2, 3)) if f.metric == "robustness.flipped_accuracy"]
    assert [(f.where["radius"], f.bound) for f in findings] == [(1, "exact"), (2, "upper"), (3, "upper")]
    for finding in findings:
        exact = brute_force(table, finding.where["radius"]).mean()
        assert exact <= finding.value <= exact + (0 if finding.bound == "exact" else 0.1)
        assert finding.detail["perturbed"] == ["job", "town", "age"]
    assert findings[0].value < 1.0
    values = [finding.value for finding in findings]
    assert values == sorted(values, reverse=True)


def test_flipped_records_are_possible_records(table):
    groups = mutable_groups(table)
    for changed, points in enumerate(flip_columns(table, table.evaluation, groups, 3), start=1):
        assert not any(broken_rules(table.evaluation.x, points, groups, changed).values())
    half = table.evaluation.x.copy()
    half[:, 1:4], half[:, 6:8] = 0.5, half[:, 7:5:-1]
    counts = broken_rules(table.evaluation.x, half, groups, 1)
    assert counts["are not one-hot"] == counts["change a fixed feature"] == 60


def test_more_columns_than_there_are_is_not_applicable(table):
    (finding,) = (
        f for f in run(table, radii=(), flips=(4,), full_attacks=()) if f.metric.endswith("flipped_accuracy")
    )
    assert finding.status == "not_applicable"
    assert "3 categorical columns" in finding.reason


def test_the_quick_copy_changes_nothing_but_time():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(144, 3)

        def forward(self, x):
            x = self.conv(x)
            return self.head(x.view(len(x), -1))  # counts on how the tensor lies

    subject = make_subject("multiclass", Own())
    copy = quick(subject, subject.evaluation.x[:5])
    x = subject.evaluation.x[:20]
    assert np.allclose(copy.logits(x), subject.logits(x), atol=1e-5)
    assert not any(p.requires_grad for p in copy.model.parameters())
    assert all(p.requires_grad for p in subject.model.parameters())


def test_autoattack_without_its_package_is_one_clear_line(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("pyautoattack"):
            raise ModuleNotFoundError("No module named 'pyautoattack'")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "fedsafe.assess.robustness.autoattack", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"pip install 'fedsafe\[autoattack\]'"):
        Robustness(full_attacks=("autoattack",))


def test_distances_of_nothing_are_nothing():
    nothing = np.zeros((0, 1, 8, 8), np.float32)
    assert distances(nothing, nothing, "l2").shape == distances(nothing, nothing, "linf").shape == (0,)


def test_a_model_that_is_never_right_has_no_nearest_errors():
    subject = make_subject("multiclass", make_model("multiclass"))
    wrong = (subject.predict(subject.evaluation.x) + 1) % 3
    subject = replace(subject, evaluation=replace(subject.evaluation, y=wrong), shards=None)
    findings = run(subject)
    assert {f.value for f in attacked(findings).values()} == {0.0}
    assert {f.status for f in findings if f.metric not in ("robustness.attacked_accuracy",)} == {
        "insufficient"
    }
    target = Target(
        subject=subject,
        quick=subject,
        examples=subject.evaluation,
        clean=np.zeros(len(subject.evaluation), bool),
        effort=SMALL,
        rng=np.random.default_rng(0),
    )
    assert set(find_nearest(target, "cw-l2").distances) == {0.0}
