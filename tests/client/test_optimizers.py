"""Local optimisers equal torch's own, row by row, and schedules go where they say."""

import math

import numpy as np
import pytest
import torch
from training_problems import TRAINERS, compare_packings, make_jobs, make_problem

from fedsafe.client.optimizers import SGD, Adam, Rows, Schedule
from fedsafe.client.trainer import LocalTraining

SGDS = [
    (SGD(momentum=0.9), {"momentum": 0.9}),
    (
        SGD(momentum=0.5, nesterov=True, weight_decay=0.1),
        {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
    ),
    (SGD(weight_decay=0.3), {"weight_decay": 0.3}),
]
ADAMS = [
    (Adam(), {"weight_decay": 0.0}),
    (
        Adam(beta1=0.5, beta2=0.7, eps=1e-3, weight_decay=0.2),
        {"betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0.2},
    ),
]


@pytest.mark.parametrize(("cases", "peer"), [(SGDS, torch.optim.SGD), (ADAMS, torch.optim.AdamW)])
def test_every_row_moves_as_a_vector_of_its_own_does_in_torch(cases, peer):
    torch.manual_seed(0)
    start = torch.randn(len(cases), 7, dtype=torch.float64)
    rates = [0.1 * (row + 1) for row in range(len(cases))]
    rows, weights = Rows([ours for ours, _ in cases], start), start.clone()
    alone = [torch.nn.Parameter(row.clone()) for row in start]
    peers = [peer([w], lr=r, **options) for w, r, (_, options) in zip(alone, rates, cases, strict=True)]
    for step in range(6):
        gradient = torch.randn_like(start)
        factor = 1.0 / (1 + step)
        column = torch.tensor([[rate * factor] for rate in rates], dtype=torch.float64)
        weights = weights - rows.change(weights, gradient.clone(), column)
        for weight, own, rate, optimizer in zip(alone, gradient, rates, peers, strict=True):
            weight.grad = own.clone()
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.step()
    torch.testing.assert_close(weights, torch.stack([w.detach() for w in alone]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "optimizer", [SGD(momentum=0.8, nesterov=True), SGD(weight_decay=0.2), Adam(weight_decay=0.1)]
)
def test_trainers_agree_and_no_packing_changes_a_bit(optimizer):
    schedule = Schedule(name="cosine", warmup=0.2)
    build, training, parts, start = make_problem(
        "relu", optimizer=optimizer, schedule=schedule, rounds=3, learning_rate=0.05, proximal=0.1
    )
    results = [
        build(t, training=training).train(start, make_jobs(parts, range(8), round=2)) for t in TRAINERS
    ]
    for other in results[1:]:
        np.testing.assert_allclose(results[0], other, rtol=2e-4, atol=2e-5)
    compare_packings(build("stacked", training=training), parts, start, 3, np.random.default_rng(1))


def test_a_stack_may_hold_clients_with_settings_of_their_own():
    """Each row with its own settings and start is what it would be alone, so that whole runs can be stacked."""
    build, training, parts, start = make_problem("tanh")
    rng = np.random.default_rng(2)
    ways = [
        {"clip": 0.1},
        {"noise": 0.3, "learning_rate": 0.1},
        {"clip": math.inf, "noise": 0.0},
        {"optimizer": SGD(momentum=0.5)},
        {"optimizer": Adam(), "learning_rate": 0.01},
        {"proximal": 0.4},
        {"steps": 2, "rate": 0.5},
        {},
    ]
    own = [LocalTraining(**{**vars(training), **way}) for way in ways]
    starts = [start + rng.normal(scale=0.1, size=start.shape).astype(np.float32) for _ in ways]
    jobs = make_jobs(parts, range(8), trainings=own, starts=starts)
    together = build("stacked", training=training).train(start, jobs)
    for client, (way, begin, found) in enumerate(zip(own, starts, together, strict=True)):
        alone, oracle = (
            build(name, training=way).train(begin, make_jobs(parts, [client]))[0]
            for name in ("stacked", "opacus")
        )
        np.testing.assert_array_equal(alone, found)
        np.testing.assert_allclose(oracle, found, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(), [1.0, 1.0, 1.0, 1.0]),
        (Schedule(name="linear"), [1.0, 0.75, 0.5, 0.25]),
        (Schedule(name="linear", final=0.5), [1.0, 0.875, 0.75, 0.625]),
        (
            Schedule(name="cosine"),
            [1.0, 0.5 + 0.5 * math.cos(math.pi / 4), 0.5, 0.5 - 0.5 * math.cos(math.pi / 4)],
        ),
        (Schedule(name="exponential", final=0.0625), [1.0, 0.5, 0.25, 0.125]),
        (Schedule(name="linear", warmup=0.5), [0.5, 1.0, 1.0, 0.5]),
    ],
)
def test_schedules_run_over_the_steps_of_all_rounds(schedule, expected):
    training = LocalTraining(
        learning_rate=2.0, steps=2, rate=0.5, clip=1.0, noise=0.0, schedule=schedule, rounds=2
    )
    found = [training.learning_rate_at(round, step) for round in (1, 2) for step in (0, 1)]
    assert found == pytest.approx([2.0 * factor for factor in expected])


def test_without_a_clip_the_sums_are_those_with_an_infinite_one():
    """The short way without norms, and the way with them where a record is bad."""
    build, training, parts, start = make_problem("relu", clip=math.inf, noise=0.0, rate=0.9)
    trainer = build("stacked", training=training)
    expected = build("opacus", training=training).train(start, make_jobs(parts, range(8)))
    np.testing.assert_allclose(
        trainer.train(start, make_jobs(parts, range(8))), expected, rtol=2e-5, atol=5e-6
    )
    x = build.keywords["x"].clone()
    x[parts[2][0]] = math.inf
    spoiled = build.keywords | {"x": x}
    results = [build.func(t, training=training, **spoiled) for t in ("stacked", "opacus")]
    found, expected = (trainer.train(start, make_jobs(parts, range(8))) for trainer in results)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=5e-6)
