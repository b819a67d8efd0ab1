"""Inversion: exact without noise, no better than the mean record with it, and what it shows is held to slow oracles."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import make_model, make_subject, make_task
from torch import nn

from fedsafe.assess.privacy.inversion import Inversion
from fedsafe.assess.privacy.inverting import analytic, first_layer, match, read_label
from fedsafe.assess.privacy.likeness import identified, psnr, ssim, to_ranges
from fedsafe.assess.privacy.uploads import gradient, updates, whole_batches
from fedsafe.client import LocalTraining, record_grid_bits

EXACT = {"noise": "none", "records": 1, "steps": 1}
NOISED = {**EXACT, "noise": "of the run"}


def noised(subject, noise=1.0):
    """The subject's run with a usual clip and noise, on a grid as runs have it."""
    old, parameters = subject.federation.training, len(subject.federation.initial)
    training = replace(old, clip=1.0, noise=noise, grid_bits=record_grid_bits(1.0, parameters))
    return replace(subject, federation=replace(subject.federation, training=training))


def run(subject, tier="cheap", seed=0, **options):
    findings = Inversion(**options)(subject, rng=np.random.default_rng(seed), tier=tier)
    return {(f.metric.removeprefix("inversion."), *f.where.values()): f for f in findings}


def get(found, metric, attack, where):
    return found[(metric, attack, *where.values())]


def test_a_record_alone_is_recovered_without_noise_and_not_at_the_runs_own():
    found = run(noised(make_subject("multiclass")))
    likeness = get(found, "psnr", "analytic", EXACT)
    assert likeness.interval[0] > 40
    assert likeness.anchors["mean_image"] < 30
    assert get(found, "ssim", "analytic", EXACT).value == pytest.approx(1.0, abs=1e-6)
    assert get(found, "gain_over_mean", "analytic", EXACT).interval[0] > 20
    assert get(found, "identified", "analytic", EXACT).value == 1.0
    assert get(found, "label_accuracy", "label inference", EXACT).value == 1.0
    assert get(found, "gain_over_mean", "analytic", NOISED).interval[1] <= 0
    noised_one = get(found, "psnr", "analytic", NOISED)
    assert noised_one.value <= noised_one.anchors["mean_image"]
    assert (noised_one.detail["clip"], noised_one.detail["noise_multiplier"]) == (1.0, 1.0)


def test_a_row_of_a_table_is_recovered_alike():
    found = run(noised(make_subject("binary")))
    exact, drowned = (get(found, "row_error", "analytic", where) for where in (EXACT, NOISED))
    assert exact.value < 1e-3
    assert drowned.interval[0] > drowned.anchors["mean_record"]
    assert exact.bound == "upper"
    assert not [key for key in found if key[0] in ("psnr", "ssim")]


def test_noise_decides_with_little_of_it_the_record_is_still_found():
    found = run(noised(make_subject("multiclass"), noise=1e-3))
    assert get(found, "gain_over_mean", "analytic", NOISED).interval[0] > 0


def test_pictures_show_public_records_recovered_and_drowned():
    subject = noised(make_subject("multiclass"))
    rows = get(run(subject), "psnr", "analytic", EXACT).detail["pictures"]
    assert [picture["title"] for picture in rows[0]] == [
        "record",
        "rebuilt without noise",
        "rebuilt at the noise of the run",
        "mean image",
    ]
    for record, exact, drowned, mean in rows:
        assert exact["bytes"] == record["bytes"] != drowned["bytes"]
        assert float(exact["note"].split()[0]) > 40 > float(mean["note"].split()[0])
    private = replace(subject, released="figures")
    assert "pictures" not in get(run(private), "psnr", "analytic", EXACT).detail


def test_the_full_tier_matches_gradients_and_takes_the_runs_steps():
    found = run(noised(make_subject("binary")), "full", matched=3, iterations=150)
    assert get(found, "gain_over_mean", "gradient matching", EXACT).interval[0] > 0
    assert get(found, "gain_over_mean", "gradient matching", NOISED).interval[0] <= 0
    larger = {"noise": "none", "records": 8, "steps": 2}
    assert get(found, "row_error", "analytic", larger).n == 32
    drowned = get(found, "gain_over_mean", "analytic", {**larger, "noise": "of the run"})
    # The nearest of several candidates is set beside the nearest of as many guesses.
    assert drowned.anchors == {"best_guess": 0.0}
    assert drowned.interval[1] <= 0


def test_a_model_without_such_a_layer_is_named_and_its_labels_are_still_read():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    found = run(with_model(make_subject("multiclass"), model))
    odd = get(found, "psnr", "analytic", EXACT)
    assert (odd.status, odd.value) == ("not_applicable", None)
    assert "linear layer" in odd.reason
    assert get(found, "label_accuracy", "label inference", EXACT).value == 1.0


def test_a_last_layer_without_a_bias_shows_no_label():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3, bias=False))
    found = run(with_model(make_subject("multiclass"), model))
    assert get(found, "label_accuracy", "label inference", EXACT).status == "not_applicable"
    assert get(found, "psnr", "analytic", EXACT).value > 40


def with_model(subject, model):
    initial = nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    return replace(subject, model=model.eval(), federation=replace(subject.federation, initial=initial))


def test_without_noise_or_clip_in_the_run_one_setting_is_told():
    subject = make_subject("binary")
    plain = LocalTraining(learning_rate=0.5, steps=2, rate=0.25, clip=math.inf, noise=0.0)
    found = run(replace(subject, federation=replace(subject.federation, training=plain)))
    assert {key[2] for key in found} == {"none"}


def test_outside_a_simulation_nothing_is_said():
    for lacking in ({"federation": None}, {"training": None, "federation": None}):
        (finding,) = run(replace(make_subject("binary"), **lacking)).values()
        assert (finding.status, finding.value) == ("not_applicable", None)


def test_an_update_of_a_record_is_the_trainers_step_and_the_gradient_of_autograd():
    subject = make_subject("multiclass")
    federation, examples = subject.federation, subject.training.examples.take(np.arange(3))
    way = whole_batches(federation.training, steps=1, noised=False)
    rows = [np.array([i]) for i in range(3)]
    sent = updates(subject, federation, examples, rows, way, np.random.default_rng(0))
    for i in range(3):
        own = gradient(subject, federation, examples.take(np.array([i])))
        assert sent[i] == pytest.approx(way.learning_rate * own, abs=2e-6)


@pytest.mark.parametrize("kind", ["multiclass", "binary"])
def test_the_division_is_exact_and_the_label_is_read_whatever_the_model(kind):
    rng = np.random.default_rng(0)
    subject = make_subject(kind, make_model(kind, 3))
    layer = first_layer(subject, subject.evaluation.x[:2])
    for i in rng.choice(200, 8):
        one = subject.evaluation.take(np.array([i]))
        own = gradient(subject, subject.federation, one)
        assert analytic(own, layer, 1)[0] == pytest.approx(one.x.ravel(), abs=1e-4)
        assert read_label(subject, own) == one.y[0]
        assert read_label(subject, -own) != one.y[0]
    assert len(analytic(np.zeros_like(own), layer, 1)) == 0


def test_of_several_records_units_that_one_alone_moves_give_it_away():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 3))
    subject = with_model(make_subject("multiclass"), model)
    with torch.no_grad():
        subject.model[1].bias -= 0.5  # few units are moved by any record
    several = subject.evaluation.take(np.arange(3))
    layer = first_layer(subject, several.x)
    candidates = analytic(gradient(subject, subject.federation, several), layer, 3)
    distances = np.abs(candidates[:, None] - several.x.reshape(3, -1)).max(axis=2)
    assert distances.min(axis=0).max() < 1e-3


def test_matching_stays_within_the_public_bounds_and_gives_up_on_nothing():
    subject, rng = make_subject("binary"), np.random.default_rng(0)
    one = subject.evaluation.take(np.array([0]))
    own = gradient(subject, subject.federation, one)
    y = torch.tensor(one.y)
    found = match(subject, subject.federation, own, y, rng, iterations=20)
    low, high = subject.input_bounds()
    assert ((found >= low - 1e-6) & (found <= high + 1e-6)).all()
    assert match(subject, subject.federation, np.zeros_like(own), y, rng, iterations=20) is None
    assert match(subject, subject.federation, own * np.nan, y, rng, iterations=20) is None


def test_psnr_and_ssim_are_their_definitions():
    rng = np.random.default_rng(0)
    true = rng.random((4, 1, 9, 9))
    off = np.clip(true + 0.1, 0, 1)
    assert psnr(true, true) == pytest.approx(150.0)
    flat = np.full((1, 1, 9, 9), 0.3)
    assert psnr(flat + 0.1, flat)[0] == pytest.approx(20.0)
    assert ssim(true, true) == pytest.approx(1.0)
    assert (ssim(rng.random((4, 1, 9, 9)), true) < ssim(off, true)).all()
    # One window of a flat image beside another: only the means differ.
    c1 = 1e-4
    assert ssim(flat + 0.1, flat)[0] == pytest.approx((2 * 0.3 * 0.4 + c1) / (0.09 + 0.16 + c1))


def test_ranges_and_decoys():
    low, high = np.array([-1.0, 0.0, 2.0], np.float32), np.array([1.0, 4.0, 2.0], np.float32)
    assert to_ranges(np.array([[0.0, 1.0, 2.0], [9.0, -9.0, 2.0]]), low, high).tolist() == [
        [0.5, 0.25, 0.0],
        [1.0, 0.0, 0.0],
    ]
    true, decoys = np.array([[0.0], [1.0]]), np.array([[0.4], [1.0]])
    assert identified(np.array([[0.1], [1.0]]), true, decoys).tolist() == [True, False]


def test_one_record_is_too_few():
    subject = make_subject("binary", task=make_task("binary", 40))
    few = replace(subject.training, rows=(np.array([0]), *(np.zeros(0, np.int64),) * 23))
    own = replace(subject.federation, own=None)
    (finding,) = run(replace(subject, training=few, federation=own)).values()
    assert (finding.status, finding.value) == ("insufficient", None)
