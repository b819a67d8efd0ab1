"""The lines of the monitor: its false-alarm rate, inputs from elsewhere, and attacks on MNIST and Adult.

    python benchmarks/accept_serve_monitor.py          # some minutes on a quiet core
    python benchmarks/accept_serve_monitor.py MNIST    # this part again (speed, Adult, MNIST)

The models are trained here without privacy: what is judged is the monitor. MNIST is read from $FEDSAFE_DATA_DIR.
Letters are drawn with the fonts that matplotlib brings; those that look like a digit are left out.
"""

import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
from lines import Lines
from parts import again
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torch.nn import functional

from fedsafe.data import Task, load_task
from fedsafe.models import build_model
from fedsafe.serve import Monitor, monitor_findings
from fedsafe.serve.opening import split_public
from fedsafe.serve.published import Effort

COMMAND = "python benchmarks/accept_serve_monitor.py"
LETTERS = (
    "ACEFGHJKLMNPRTUVWXYadefhkmnprtuvwxy"  # not B D I O Q S Z b c g i j l o q s z: one would read a digit
)
SPLITS = 5


def trained(task: Task, model: dict[str, object], *, records: int, epochs: int) -> nn.Module:
    found = build_model(model, signature=task.signature, seed=0)
    x, y = torch.tensor(task.train.x[:records]), torch.tensor(task.train.y[:records])
    optimizer = torch.optim.Adam(found.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(128):
            optimizer.zero_grad()
            outputs = found(x[rows])
            loss = (
                functional.binary_cross_entropy_with_logits(outputs[:, 0], y[rows].float())
                if outputs.shape[1] == 1
                else functional.cross_entropy(outputs, y[rows])
            )
            loss.backward()
            optimizer.step()
    return found.eval()


def letters(count: int, seed: int) -> np.ndarray:
    """White letters on black in 28 by 28, turned, in several sizes and fonts, the mass in the middle as MNIST's."""
    rng = np.random.default_rng(seed)
    fonts = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVu*.ttf"))
    fonts = [path for path in fonts if "Display" not in path.name]
    found = np.zeros((count, 1, 28, 28), np.float32)
    for row in range(count):
        font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), int(rng.integers(17, 24)))
        image = Image.new("L", (56, 56))
        ImageDraw.Draw(image).text(
            (28, 28), LETTERS[rng.integers(len(LETTERS))], fill=255, font=font, anchor="mm"
        )
        pixels = np.asarray(
            image.rotate(float(rng.normal(0, 8)), resample=Image.Resampling.BILINEAR), np.float32
        )
        down, across = np.average(
            np.indices(pixels.shape).reshape(2, -1), axis=1, weights=pixels.ravel() + 1e-9
        )
        top, left = (int(np.clip(round(float(at)) - 14, 0, 28)) for at in (down, across))
        found[row, 0] = pixels[top : top + 28, left : left + 28] / 255.0
    return found


def measure(
    lines: Lines, name: str, task: Task, model: nn.Module, foreign: dict[str, np.ndarray], effort: Effort
) -> None:
    rates, where = [], f"{COMMAND}, {name}"
    for seed in range(SPLITS):
        known, test = split_public(task, seed)
        found = Monitor.fit(model, task, known, seed=seed)
        rates.append(float(found.check(test.x).alarms.mean()))
    mean = float(np.mean(rates))
    shown = ", ".join(f"{100 * rate:.2f}" for rate in rates)
    lines.add(
        f"{name}: the false-alarm rate on clean held-out records is within 1 point of the stated 5 %",
        where,
        f"{100 * mean:.2f} % on average over {SPLITS} splits of the evaluation records, each {len(test)} held out "
        f"({shown}); a split's own sampling error is about "
        f"{100 * (0.0475 * (1 / len(test) + 1 / found.facts['calibrated_on'])) ** 0.5:.2f} points",
        met=abs(mean - 0.05) <= 0.01 and sum(abs(rate - 0.05) <= 0.01 for rate in rates) >= SPLITS - 1,
    )
    known, test = split_public(task, 0)
    found = Monitor.fit(model, task, known, seed=0)
    findings = monitor_findings(
        found,
        task.schema,
        test,
        data=task.evaluation_name,
        foreign=foreign,
        effort=effort,
        rng=np.random.default_rng(0),
    )
    chosen = "; ".join(
        f"{kind}: {', '.join(d.name for d in group)}" for kind, group in found.detectors.items()
    )
    needed = {"uniform noise", *foreign} | ({"permuted features"} if name == "Adult" else set())
    for finding in findings:
        low, high = finding.interval or (float("nan"), float("nan"))
        if finding.metric == "monitor.auroc":
            domain = str(finding.where["domain"])
            text = f"AUROC {finding.value:.4f} [{low:.4f}, {high:.4f}] on {finding.n} inputs; detectors: {chosen}"
            if domain in needed:
                lines.add(
                    f"{name}: {domain} is caught at AUROC 0.95 or more",
                    where,
                    text,
                    met=finding.value >= 0.95,
                )
            else:
                lines.add(f"{name}: {domain}, reported whatever it is", where, text, met=True)
    for attack in ("static", "adaptive"):
        rate, slipped = (
            next(f for f in findings if f.metric == metric and f.where.get("attack") == attack)
            for metric in ("monitor.detection_rate", "monitor.undetected_error_rate")
        )
        counts = slipped.detail
        text = (
            f"of {counts['attacked']} inputs {counts['misread']} are misread at radius {effort.radius:g}, and "
            f"{counts['noticed']} of these noticed"
            + (f" ({100 * rate.value:.1f} % {_percent(rate.interval)})" if rate.value is not None else "")
            + f"; misread and unnoticed {100 * slipped.value:.1f} % {_percent(slipped.interval)}; "
            f"{effort.steps} steps, {effort.restarts} restarts; false alarms 5 %"
        )
        lines.add(
            f"{name}: detection under the {attack} attack is reported, whatever it is", where, text, met=True
        )
    rest = {(f.metric, str(f.where.get("scaling", f.where.get("coverage", "")))): f for f in findings}
    before, after = (rest["monitor.calibration_error", key] for key in ("before", "after"))
    area = rest["monitor.risk_coverage_area", ""]
    lines.add(
        f"{name}: calibration before and after scaling, and selective risk, with intervals",
        where,
        f"calibration error {before.value:.4f} {_ends(before)} before, {after.value:.4f} {_ends(after)} after "
        f"(temperature {found.temperature:.3f}); risk {rest['monitor.selective_risk', '1.0'].value:.4f} for all, "
        f"{rest['monitor.selective_risk', '0.9'].value:.4f} at 90 % coverage; area {area.value:.4f} {_ends(area)}, "
        f"best ranking {area.anchors['best ranking']:.4f}, random {area.anchors['random ranking']:.4f}",
        met=area.interval is not None and after.value <= max(before.value, 0.01),
    )


def speed(lines: Lines, task: Task, model: nn.Module) -> None:
    known, test = split_public(task, 0)
    found = Monitor.fit(model, task, known)
    for row in test.x[:200]:
        found.check(row[None])
    blocks = []
    for block in np.array_split(test.x[:4000], 20):
        began = time.process_time()
        for row in block:
            found.check(row[None])
        blocks.append((time.process_time() - began) / len(block))
    each = min(blocks)  # what else runs on the machine only adds
    began = time.process_time()
    for start in range(0, 4800, 32):
        found.check(test.x[start : start + 32])
    batched = (time.process_time() - began) / 4800
    lines.add(
        "Adult: a single record is predicted and checked in a quarter of a millisecond",
        f"{COMMAND}, speed",
        f"{1000 * each:.3f} ms one by one in the fastest of 20 blocks (median {1000 * float(np.median(blocks)):.3f}), "
        f"{1000 * batched:.3f} ms in batches of 32, processor time of one core",
        met=each < 0.25e-3,
    )


def _percent(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _ends(finding) -> str:
    return f"[{finding.interval[0]:.4f}, {finding.interval[1]:.4f}]"


def main() -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder))
        parts = again(lines, "serve_monitor", ("speed", "Adult", "MNIST"), sys.argv[1:])
        if "speed" in parts or "Adult" in parts:
            adult = load_task("adult")
            model = trained(adult, {"name": "mlp", "hidden": [64]}, records=32561, epochs=3)
        if "speed" in parts:
            with lines.section("a record is checked", f"{COMMAND}, speed"):
                speed(lines, adult, model)
        if "Adult" in parts:
            with lines.section("the monitor on Adult", f"{COMMAND}, Adult"):
                measure(lines, "Adult", adult, model, {}, Effort(attacked=400, steps=40, restarts=4))
        if "MNIST" in parts:
            with lines.section("the monitor on MNIST", f"{COMMAND}, MNIST"):
                mnist = load_task("mnist-writers")
                model = trained(mnist, {"name": "cnn"}, records=60000, epochs=3)
                drawn = {"letters": letters(1000, 0)}
                effort = Effort(radius=0.2, attacked=100, steps=20, restarts=3)
                measure(lines, "MNIST", mnist, model, drawn, effort)
        return lines.write("serve_monitor")


if __name__ == "__main__":
    sys.exit(main())
