"""Corruptions do what their names say, figures are right where the truth is known, and the baseline has a name."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import make_subject, make_task
from torch import nn

from fedsafe.assess.corruptions import blurs, drawing, geometry, pixels
from fedsafe.assess.corruptions.assessor import Corruptions
from fedsafe.assess.corruptions.baseline import fit_ridge
from fedsafe.assess.corruptions.figures import mean_error
from fedsafe.assess.corruptions.suites import CORRUPTIONS, MNIST_C
from fedsafe.errors import ConfigError
from fedsafe.report.cells import finding_cell


def images(n=12, channels=1, side=28, seed=0):
    """A bright cross on black."""
    x = np.zeros((n, channels, side, side))
    middle, reach = side // 2, side // 3
    x[:, :, middle - 1 : middle + 2, reach:-reach] = 0.9
    x[:, :, reach:-reach, middle - 1 : middle + 2] = 0.9
    return x * np.random.default_rng(seed).uniform(0.8, 1.0, (n, 1, 1, 1))


def run(subject, tier="full", seed=0, **options):
    findings = Corruptions(**options)(subject, rng=np.random.default_rng(seed), tier=tier)
    single = {
        (f.where.get("corruption"), f.where.get("severity")): f for f in findings if "severity" in f.where
    }
    return findings, single


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (1, 8)])
def test_every_corruption_keeps_the_shape_and_range_and_changes_images_by_its_seed_alone(
    name, channels, side
):
    x = images(channels=channels, side=side)
    kept = x.copy()
    for severity in (1, 5):
        found = CORRUPTIONS[name](x, severity, np.random.default_rng(1))
        assert found.shape == x.shape
        assert np.isfinite(found).all()
        assert found.min() >= -1e-12
        assert found.max() <= 1 + 1e-12
        assert np.array_equal(found, CORRUPTIONS[name](x, severity, np.random.default_rng(1)))
        assert np.abs(found - x).max() > (0.05 if side > 8 else 0)
    assert np.array_equal(x, kept)
    random = name not in ("brightness", "stripe", "scale", "canny_edges", "gaussian_blur")
    if random and side > 8:
        other = CORRUPTIONS[name](x, 5, np.random.default_rng(2))
        assert not np.array_equal(found, other)


def test_the_suite_has_the_fifteen_of_the_paper():
    assert len(MNIST_C) == 15
    assert set(MNIST_C) <= set(CORRUPTIONS)


def test_noise_has_its_scale():
    flat, rng = np.full((200, 1, 20, 20), 0.5), np.random.default_rng(0)
    for severity, scale in enumerate((0.08, 0.12, 0.18), start=1):
        assert pixels.gaussian_noise(flat, severity, rng).std() == pytest.approx(scale, rel=0.02)
    for severity, photons in ((1, 60), (3, 12)):
        found = pixels.shot_noise(flat, severity, rng)
        assert found.std() == pytest.approx(np.sqrt(0.5 / photons), rel=0.03)
    for severity, share in ((1, 0.03), (4, 0.17)):
        found = pixels.impulse_noise(flat, severity, rng)
        assert np.mean(found != 0.5) == pytest.approx(share, abs=0.005)
        assert np.mean(found[found != 0.5]) == pytest.approx(0.5, abs=0.05)


def test_brightness_adds_to_the_largest_channel_and_keeps_the_hue():
    assert pixels.brightness(np.full((1, 1, 2, 2), 0.2), 5, None)[0, 0, 0, 0] == pytest.approx(0.7)
    colour = np.array([0.4, 0.2, 0.1]).reshape(1, 3, 1, 1)
    assert pixels.brightness(colour, 2, None).ravel() == pytest.approx([0.6, 0.3, 0.15])
    assert pixels.brightness(np.zeros((1, 3, 1, 1)), 5, None).ravel() == pytest.approx([0.5] * 3)


def test_stripes_are_inverted_and_undone_by_themselves():
    x = images()
    found = pixels.stripe(x, 1, None)
    assert np.allclose(found[..., :7], 1 - x[..., :7])
    assert np.array_equal(found[..., 7:21], x[..., 7:21])
    assert np.allclose(pixels.stripe(found, 1, None), x)


def test_a_turn_by_a_quarter_is_the_turned_image_and_no_map_is_the_image():
    x = np.random.default_rng(0).random((2, 1, 9, 9))
    assert np.allclose(geometry.warp(x, np.eye(2)), x)
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    assert np.allclose(geometry.warp(x, quarter), np.rot90(x, axes=(2, 3)))
    assert np.allclose(geometry.warp(x, np.eye(2), (2, -3))[:, :, 3:, :-2], x[:, :, :-3, 2:])
    half = geometry.warp(x, np.eye(2), (0.5, 0.0))
    assert np.allclose(half[..., :-1], (x[..., 1:] + x[..., :-1]) / 2)


def test_shapes_move_by_what_they_should():
    x, rng = images(200), np.random.default_rng(0)
    rows, columns = np.meshgrid(np.arange(28) - 13.5, np.arange(28) - 13.5, indexing="ij")

    def centre(found):
        weight = found[:, 0].sum(axis=(1, 2))
        return (found[:, 0] * columns).sum(axis=(1, 2)) / weight, (found[:, 0] * rows).sum(
            axis=(1, 2)
        ) / weight

    across, down = centre(geometry.translate(x, 3, rng))
    start = centre(x)
    assert set(np.round(across - start[0]).astype(int)) == {-3, 3}
    assert set(np.round(down - start[1]).astype(int)) == {-3, 3}
    smaller = geometry.scale(x, 3, rng)
    assert smaller.sum() == pytest.approx(0.7**2 * x.sum(), rel=0.03)
    turned = geometry.rotate(x, 2, rng)
    assert turned.sum() == pytest.approx(x.sum(), rel=0.03)
    ways = {tuple(np.round(found / found.max(), 6).ravel()) for found in turned}
    assert len(ways) == 2  # to either side


def test_blurs_keep_the_light_and_spread_it():
    x, rng = images(), np.random.default_rng(0)
    for severity in (1, 3, 5):
        found = blurs.gaussian_blur(x, severity, rng)
        assert found.sum() == pytest.approx(x.sum(), rel=1e-3)
        assert found.max() < x.max()
    point = np.zeros((50, 1, 41, 41))
    point[:, 0, 20, 20] = 1
    moved = blurs.motion_blur(point, 1, rng)
    assert moved.sum(axis=(1, 2, 3)) == pytest.approx(1.0)
    _, columns = np.nonzero(moved.sum(axis=(0, 1)))
    assert columns.max() <= 20  # light trails to one side
    assert columns.min() == 0  # as far as twice the radius
    glass = blurs.glass_blur(x, 1, rng)
    assert glass.sum() == pytest.approx(x.sum(), rel=0.03)


def test_fractal_maps_are_periodic_rough_and_fill_the_range():
    maps = drawing.plasma(3, 64, 1.5, np.random.default_rng(0))
    assert maps.min(axis=(1, 2)) == pytest.approx(0)
    assert maps.max(axis=(1, 2)) == pytest.approx(1)
    step = np.abs(np.diff(maps, axis=2)).mean()
    seam = np.abs(maps[:, :, 0] - maps[:, :, -1]).mean()
    assert seam < 2 * step
    smooth = drawing.plasma(3, 64, 3.0, np.random.default_rng(0))
    assert np.abs(np.diff(smooth, axis=2)).mean() < step


def test_lines_leave_what_they_do_not_cover_and_edges_are_at_edges():
    dark = np.zeros((20, 1, 28, 28))
    dotted = drawing.dotted_line(dark, 1, np.random.default_rng(0))
    lit = dotted[:, 0].max(axis=1) > 0
    assert not lit[:, np.arange(28) % 4 < 2].any()
    assert lit[:, [2, 3, 6, 7, 22, 23]].all()
    zigzag = drawing.zigzag(dark, 1, np.random.default_rng(0))
    assert (zigzag[:, 0, :, 3:24].max(axis=(1, 2)) > 0.9).all()
    assert (zigzag[:, 0, :, 26:] == 0).all()
    square = np.zeros((2, 1, 28, 28))
    square[:, :, 8:20, 8:20] = 1
    edges = drawing.canny_edges(square, 1, None)[0, 0]
    assert set(np.unique(edges)) == {0.0, 1.0}
    assert edges[10:18, 11:17].sum() == 0
    assert edges[:6].sum() == 0
    assert (edges[10:18, 6:10].sum(axis=1) >= 1).all()
    assert drawing.canny_edges(np.full((1, 1, 28, 28), 0.7), 1, None)[0, 0, 4:-4, 4:-4].sum() == 0


class Brightness(nn.Module):
    """Class 1 where the mean of the left half is above that of the right; class 2 never."""

    def forward(self, x):
        half = x.shape[3] // 2
        left, right = x[..., :half].mean(dim=(1, 2, 3)), x[..., half:].mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(left), left - right, torch.full_like(left, -9.0)], dim=1)


@pytest.fixture(scope="module")
def halves():
    task = make_task("multiclass", 480)
    subject = make_subject("multiclass", Brightness(), task)
    truth = replace(task.evaluation, y=subject.predict(task.evaluation.x))
    return replace(subject, evaluation=truth, shards=None)


def test_a_model_of_known_invariances_stands_what_does_not_concern_it(halves):
    findings, single = run(halves, suite=("brightness", "stripe", "scale:1"))
    assert single["brightness", 5].value > 0.95  # adds the same to both halves, up to clipping
    assert single["stripe", 1].value < 0.6  # much of what decides lies at the edges
    (mean,) = [f for f in findings if f.metric == "corruptions.mean_error"]
    table = mean.detail["table"]
    assert [row["corruption"] for row in table] == ["brightness", "stripe", "scale"]
    assert table[2]["severity"] == 1
    assert mean.value == pytest.approx(np.mean([1 - f.value for f in single.values()]))
    assert mean.interval[0] < mean.value < mean.interval[1]


def test_the_error_is_relative_to_a_named_baseline_on_the_same_inputs(halves, monkeypatch):
    monkeypatch.setattr("kinds_of_task.same", Brightness, raising=False)
    options = {
        "suite": ("stripe", "translate", "canny_edges"),
        "full": replace(Corruptions().full, examples=200),
    }
    findings, single = run(halves, baseline="kinds_of_task:same", **options)
    (itself,) = [f for f in findings if f.metric == "corruptions.relative_error"]
    assert itself.value == 1.0  # a model beside itself
    assert itself.where["baseline"] == "kinds_of_task:same"
    findings, single = run(halves, **options)
    (ridge,) = [f for f in findings if f.metric == "corruptions.relative_error"]
    assert ridge.detail["baseline"] == "ridge on 280 other evaluation records"
    rows = ridge.detail["table"]
    assert ridge.value == pytest.approx(np.mean([row["error"] / row["baseline_error"] for row in rows]))
    assert [row["error"] for row in rows] == pytest.approx([1 - f.value for f in single.values()])
    findings, _ = run(replace(halves, previous=None), baseline="previous", **options)
    (none,) = [f for f in findings if f.metric == "corruptions.relative_error"]
    assert (none.status, "no assessment before" in none.reason) == ("insufficient", True)


def test_ridge_solves_its_equations(halves):
    examples = halves.evaluation
    predict = fit_ridge(halves, examples)
    x = examples.x.reshape(len(examples), -1).astype(np.float64)
    targets = np.eye(3)[examples.y]
    residual = targets - predict(examples.x)
    slope = (x - x.mean(axis=0)).T @ residual / len(x)
    weight = np.linalg.lstsq(x - x.mean(axis=0), predict(examples.x) - targets.mean(axis=0), rcond=None)[0]
    assert np.allclose(slope, 0.1 * weight, atol=1e-8)
    assert np.mean(predict(examples.x).argmax(axis=1) == examples.y) > 0.9


def test_noise_and_blur_come_by_severity_and_pictures_only_of_public_records(halves):
    findings, single = run(halves)
    assert {s for name, s in single if name == "gaussian_noise"} == {1, 2, 3, 4, 5}
    assert len([key for key in single if key[0] in MNIST_C]) == 15
    (mean,) = [f for f in findings if f.metric == "corruptions.mean_error"]
    pictures = [one for row in mean.detail["pictures"] for one in row]
    assert [one["title"] for one in pictures[:2]] == ["as it is", "shot noise"]
    assert len(pictures) == 16
    assert all(one["note"].startswith("read as") for one in pictures)
    findings, _ = run(replace(halves, released="private"))
    assert all("pictures" not in f.detail for f in findings)
    findings, _ = run(halves, tier="cheap")
    assert all("pictures" not in f.detail for f in findings)


def test_a_users_corruption_is_named_and_a_broken_one_fails_alone(halves, monkeypatch):
    monkeypatch.setattr("kinds_of_task.dark", lambda x, severity, rng: 0 * x, raising=False)
    monkeypatch.setattr("kinds_of_task.broken", lambda x, severity, rng: x[:1], raising=False)
    findings, single = run(halves, suite=("kinds_of_task:dark:2", "kinds_of_task:broken", "stripe"))
    assert single["kinds_of_task:dark", 2].value == pytest.approx(np.mean(halves.evaluation.y == 0))
    assert single["kinds_of_task:broken", 3].status == "failed"
    assert single["stripe", 1].status == "measured"
    assert not [
        f for f in findings if f.metric == "corruptions.mean_error"
    ]  # of two it would be another figure
    with pytest.raises(ConfigError, match="did you mean 'fog'"):
        Corruptions(suite=("fgo",))
    with pytest.raises(ConfigError, match="baseline 'best'"):
        Corruptions(baseline="best")


def test_errors_of_a_regression_are_told_in_the_unit_of_the_target():
    findings, _ = run(make_subject("regression"))
    measured = [f for f in findings if f.metric == "corruptions.absolute_error" and f.value is not None]
    assert {f.where["corruption"] for f in measured} >= {"noise", "tilt"}
    assert {f.detail["unit"] for f in measured} == {"points"}
    cells = [finding_cell({"assessor": "corruptions", **f.to_json()}) for f in measured]
    assert all(cell.value.endswith(" points") for cell in cells)


def test_no_error_among_few_examples_is_not_no_error():
    errors = {("noise", 1): np.zeros(6), ("noise", 2): np.zeros(6)}
    mean = mean_error(make_subject("binary"), errors, "table", np.zeros(6), ())
    assert mean.value == 0.0
    assert mean.interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 6)))
