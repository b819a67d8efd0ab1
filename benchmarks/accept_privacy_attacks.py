"""The lines of the privacy attacks: shadow models as one stack, known truths of LiRA, inversion with pictures, clients.

    python benchmarks/accept_privacy_attacks.py          # some minutes on a quiet core
    python benchmarks/accept_privacy_attacks.py quick    # without the figures that no line asks for

MNIST is read from $FEDSAFE_DATA_DIR. Everything runs on one thread.
"""

import base64
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lines import Lines
from torch import nn

from fedsafe.assess import ClientRecords, Federation, Subject
from fedsafe.assess.privacy.client_attacks import ClientMembership
from fedsafe.assess.privacy.inversion import Inversion
from fedsafe.assess.privacy.membership import Membership
from fedsafe.assess.privacy.visible import rounds_before
from fedsafe.client import ClientJob, LocalTraining, build_objective, build_trainer, record_grid_bits
from fedsafe.data import Examples, Task, load_task
from fedsafe.findings import Finding, attackers
from fedsafe.models import build_model
from fedsafe.privacy.accounting import calibrate_noise
from fedsafe.rng import Stream, StreamId

DELTA = 1e-5
CLIENTS = 10
LIRA = ("LiRA online", "LiRA offline")


def flipped(examples: Examples, share: float, seed: int) -> Examples:
    """The same records, with the labels of a share of them the other way round."""
    wrong = np.random.default_rng(seed).random(len(examples)) < share
    return Examples(x=examples.x, y=np.where(wrong, 1 - examples.y, examples.y))


def adult(each: int, flips: float, seed: int = 0) -> tuple[Task, tuple[np.ndarray, ...]]:
    """Adult, of which ten clients hold so many records each, drawn at random; some labels are wrong everywhere."""
    task = load_task("adult")
    order = np.random.default_rng(seed).permutation(len(task.train))
    train = flipped(task.train.take(order), flips, 1)
    evaluation = flipped(task.evaluation, flips, 2)
    rows = tuple(np.arange(CLIENTS * each).reshape(CLIENTS, each))
    return replace(task, train=train, evaluation=evaluation), rows


def federated(
    task: Task, rows: tuple[np.ndarray, ...], training: LocalTraining, rounds: int, hidden: int, seed: int = 0
) -> Subject:
    """The model of federated averaging in which every client takes part in every round."""
    model = build_model({"name": "mlp", "hidden": [hidden]}, signature=task.signature, seed=seed)
    objective = build_objective(None, task.kind)
    initial = nn.utils.parameters_to_vector(model.parameters()).detach().numpy().copy()
    x, y = torch.tensor(task.train.x), torch.tensor(task.train.y)
    trainer = build_trainer("stacked", model, objective, x, y, training)

    def stream(purpose: str, client: int, round: int) -> Stream:
        key = seed.to_bytes(32, "big")
        return Stream(key, StreamId(purpose=purpose, client=client, round=round, digest=b""))

    weights, kept = initial, []
    for round in range(1, rounds + 1):
        if round - 1 in rounds_before(rounds):
            kept.append(weights)
        jobs = [
            ClientJob(
                client=client,
                records=own,
                batches=stream("batches", client, round),
                noise=stream("noise", client, round),
                round=round,
            )
            for client, own in enumerate(rows)
        ]
        weights = trainer.train(weights, jobs).mean(axis=0, dtype=np.float64).astype(np.float32)
    federation = Federation(
        training=training,
        trainer="stacked",
        objective=objective,
        initial=initial,
        participations=rounds,
        broadcast=tuple(kept),
    )
    return Subject(
        model=model.eval(),
        task=task,
        evaluation=task.evaluation,
        evaluation_name=task.evaluation_name,
        round=rounds,
        training=ClientRecords(examples=task.train, rows=rows),
        federation=federation,
    ).with_parameters(weights)


def attacked(
    subject: Subject, **options: int
) -> tuple[dict[tuple[str, str, float | None], Finding], float, float]:
    """Findings of membership, by metric, attack and rate; seconds of wall and of CPU time."""
    wall, own = time.perf_counter(), time.process_time()
    found = Membership(**options)(subject, rng=np.random.default_rng(0), tier="full")
    wall, own = time.perf_counter() - wall, time.process_time() - own
    return {(f.metric, f.where["attack"], f.where.get("false_positive_rate")): f for f in found}, wall, own


def share(finding: Finding) -> str:
    if finding.interval is None or finding.value is None:
        return str(finding.status)
    low, high = finding.interval
    return f"{finding.value:.4f} [{low:.4f}, {high:.4f}]"


def rates(found: Mapping[tuple[str, str, float | None], Finding], rate: float) -> str:
    names = ("loss threshold", "loss trajectory", *LIRA)
    return "; ".join(f"{name} {share(found['membership.true_positive_rate', name, rate])}" for name in names)


def areas(found: Mapping[tuple[str, str, float | None], Finding]) -> str:
    names = ("loss threshold", "loss trajectory", *LIRA)
    return "; ".join(f"{name} {share(found['membership.auc', name, None])}" for name in names)


def overfitted(lines: Lines) -> Subject:
    task, rows = adult(each=200, flips=0.2)
    training = LocalTraining(learning_rate=0.5, steps=10, rate=0.1, clip=np.inf, noise=0.0)
    subject = federated(task, rows, training, rounds=30, hidden=128)
    found, wall, own = attacked(subject)
    command = "Membership()(subject, tier='full')"
    best, threshold = (
        found["membership.true_positive_rate", name, 0.01] for name in ("LiRA online", "loss threshold")
    )
    assert best.interval is not None
    assert threshold.interval is not None
    lines.add(
        "Adult, 10 clients of 200 records, a fifth of the labels wrong, no privacy: LiRA beats the loss threshold "
        "at 1 % FPR, intervals apart",
        command,
        f"TPR at 1 % FPR: {rates(found, 0.01)}; AUC: {areas(found)}",
        met=best.interval[0] > threshold.interval[1],
    )
    recipe = best.detail["training_of_a_shadow"]
    lines.add(
        "the same: all of it, 32 shadow models as one stack included, under 90 s",
        command,
        f"{wall:.1f} s of wall time, {own:.1f} s of CPU time on one thread; each shadow {recipe['steps']} steps of "
        f"{recipe['batch']:.0f} records",
        met=wall < 90,
    )
    return subject


def large(lines: Lines) -> None:
    task, rows = adult(each=3000, flips=0.0)
    training = LocalTraining(learning_rate=0.5, steps=10, rate=0.02, clip=np.inf, noise=0.0)
    subject = federated(task, rows, training, rounds=30, hidden=64)
    found, wall, own = attacked(subject)
    recipe = found["membership.auc", "LiRA online", None].detail["training_of_a_shadow"]
    few = found["membership.true_positive_rate", "LiRA online", 0.001]
    lines.add(
        "Adult, 10 clients of 3,000 records, no privacy, 10,000 of each side attacked: 32 shadow models under 90 s, "
        "and 0.1 % FPR is resolved",
        "Membership()(subject, tier='full')",
        f"{wall:.1f} s of wall time, {own:.1f} s of CPU time on one thread; each shadow {recipe['steps']} steps of "
        f"{recipe['batch']:.0f} records; TPR at 0.1 % FPR: {rates(found, 0.001)}; at 1 %: {rates(found, 0.01)}",
        met=wall < 90 and few.status == "measured",
    )


def under_noise(lines: Lines) -> None:
    task, rows = adult(each=200, flips=0.2)
    noise = calibrate_noise(3.0, DELTA, rate=0.1, count=300)
    training = LocalTraining(learning_rate=0.5, steps=10, rate=0.1, clip=1.0, noise=noise)
    subject = federated(task, rows, training, rounds=30, hidden=128)
    claims = ({"unit": "record", "epsilon": 3.0, "delta": DELTA},)
    found, _, _ = attacked(replace(subject, claims=claims))
    both = [found["membership.true_positive_rate", name, 0.01] for name in LIRA]
    ends = [f.interval or (0.0, 0.0) for f in both]
    lines.add(
        "the same records under DP-SGD at epsilon 3: the interval of LiRA's TPR at 1 % FPR holds chance",
        "Membership()(subject, tier='full')",
        f"noise {noise:.2f}; TPR at 1 % FPR: {rates(found, 0.01)}; allowed by epsilon at most "
        f"{both[0].anchors['accounted']:.3f}; AUC: {areas(found)}",
        met=all(low <= 0.01 <= high for low, high in ends),
    )


def never_seen(lines: Lines, subject: Subject) -> None:
    task, rows = adult(each=200, flips=0.2)
    other = tuple(own + CLIENTS * 200 for own in rows)
    assert subject.federation is not None
    stranger = federated(task, other, subject.federation.training, rounds=30, hidden=128)
    # Every model that the attacks see is of the other federation.
    found, _, _ = attacked(replace(subject, model=stranger.model, federation=stranger.federation))
    names = ("loss threshold", "loss trajectory", *LIRA)
    ends = [found["membership.auc", name, None].interval or (0.0, 0.0) for name in names]
    lines.add(
        "a model that never saw the records (the same training on others): every AUC's interval holds 0.5",
        "Membership()(replace(subject, model=stranger), tier='full')",
        f"AUC: {areas(found)}; TPR at 1 % FPR: {rates(found, 0.01)}",
        met=all(low <= 0.5 <= high for low, high in ends),
    )


def inversion(lines: Lines, model: str, *, folder: Path) -> None:
    task = load_task("mnist-writers")
    module = build_model(
        {"name": "mlp", "hidden": [64]} if model == "mlp" else model, signature=task.signature, seed=0
    )
    objective = build_objective(None, task.kind)
    initial = nn.utils.parameters_to_vector(module.parameters()).detach().numpy().copy()
    # What `[privacy.record] epsilon = 3` comes to for 40 rounds of 10 steps, at the default clip and rate.
    noise = calibrate_noise(3.0, DELTA, rate=0.1, count=400)
    training = LocalTraining(
        learning_rate=1.0,
        steps=10,
        rate=0.1,
        clip=1.0,
        noise=noise,
        grid_bits=record_grid_bits(1.0, len(initial)),
    )
    subject = Subject(
        model=module.eval(),
        task=task,
        evaluation=task.evaluation,
        evaluation_name=task.evaluation_name,
        round=1,
        training=ClientRecords(examples=task.train, rows=tuple(np.arange(2000).reshape(10, 200))),
        federation=Federation(
            training=training, trainer="stacked", objective=objective, initial=initial, participations=1
        ),
    )
    own = time.process_time()
    found = Inversion()(subject, rng=np.random.default_rng(0), tier="full")
    own = time.process_time() - own
    by = {(f.metric, *f.where.values()): f for f in found}
    attack = "analytic" if model == "mlp" else "gradient matching"
    exact, drowned = (
        by["inversion.psnr", attack, "none", 1, 1],
        by["inversion.psnr", attack, "of the run", 1, 1],
    )
    gain = by["inversion.gain_over_mean", attack, "of the run", 1, 1]
    pictures = exact.detail["pictures"]
    paths = [save(row, folder / f"{model}-{number}.pgm") for number, row in enumerate(pictures)]
    text = (
        f"{attack}: without noise {share(exact)} dB, at noise {noise:.2f} {share(drowned)} dB, mean image "
        f"{drowned.anchors['mean_image']:.1f} dB, all zero {drowned.anchors['all_zero']:.1f} dB; gain over the mean "
        f"image {share(gain)} dB; {len(paths)} rows of {len(pictures[0])} pictures; {own:.0f} s of CPU time"
    )
    command = f"Inversion()(subject of an untrained {model}, tier='full')"
    assert exact.interval is not None
    assert gain.interval is not None
    if model == "mlp":
        lines.add(
            "MNIST, linear-first model, batch 1 without noise: PSNR over 40 dB; at the default noise no better than "
            "the mean image; both as pictures",
            command,
            text,
            met=exact.interval[0] > 40 and gain.interval[1] <= 0 and len(pictures) == 3,
        )
        larger = [by["inversion.gain_over_mean", attack, noise, 8, 10] for noise in ("none", "of the run")]
        lines.add(
            "reported: batch 8, 10 local steps, without noise and at the run's",
            command,
            "gain over as many guesses: " + ", ".join(share(f) for f in larger) + " dB",
            met=True,
        )
    else:
        lines.add(f"reported: MNIST, {model}", command, text, met=True)


def save(row: list[dict[str, object]], path: Path) -> Path:
    """One row of pictures side by side, as a portable grey map."""
    planes = [
        np.frombuffer(base64.b64decode(str(p["bytes"])), np.uint8).reshape(
            int(str(p["height"])), int(str(p["width"]))
        )
        for p in row
    ]
    image = np.concatenate(planes, axis=1)
    path.write_bytes(f"P5 {image.shape[1]} {image.shape[0]} 255\n".encode() + image.tobytes())
    return path


def clients(lines: Lines) -> None:
    """Writers of MNIST as clients: some take part, some do not."""
    task = load_task("mnist-writers")
    holders = (
        task.train.holders["writer"]
        if "writer" in task.train.holders
        else next(iter(task.train.holders.values()))
    )
    names = np.unique(holders)[:200]
    every = [np.flatnonzero(holders == name)[:40] for name in names]
    parts = [own[:20] for own in every]
    for title, clip, noise in (("no privacy", np.inf, 0.0), ("noise 1, clip 1", 1.0, 1.0)):
        training = LocalTraining(learning_rate=0.5, steps=5, rate=0.5, clip=clip, noise=noise)
        subject = federated(task, tuple(parts[:100]), training, rounds=20, hidden=64)
        assert subject.federation is not None
        own = ClientRecords(examples=task.train, rows=tuple(rows[20:] for rows in every[:100]))
        subject = replace(
            subject,
            federation=replace(subject.federation, own=own),
            unseen=ClientRecords(examples=task.train, rows=tuple(parts[100:])),
        )
        found = ClientMembership()(subject, rng=np.random.default_rng(0), tier="full")
        rows = attackers([finding.to_json() for finding in found])
        text = "; ".join(
            f"{row.adversary}, {row.attack}: AUC {row.value:.3f} [{low:.3f}, {high:.3f}]"
            for row in rows
            for low, high in [row.interval]
        )
        lines.add(
            f"reported: 100 writers that took part and 100 that did not, {title}: four attacks on clients, each with "
            "its adversary",
            "ClientMembership()(subject, tier='full')",
            text,
            met=len(rows) == 4 and all(row.sees and row.costs and row.statement for row in rows),
        )


def main() -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder))
        with lines.section("Adult", "load_task('adult')"):
            subject = overfitted(lines)
            never_seen(lines, subject)
            under_noise(lines)
            large(lines)
        with lines.section("MNIST", "load_task('mnist-writers')"):
            inversion(lines, "mlp", folder=Path(folder))
            if "quick" not in sys.argv[1:]:
                inversion(lines, "cnn", folder=Path(folder))
                clients(lines)
        return lines.write("privacy_attacks")


if __name__ == "__main__":
    sys.exit(main())
