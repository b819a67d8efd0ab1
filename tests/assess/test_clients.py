"""What clients get: evenness, models of their own, and the gap to clients who took no part."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import make_model, make_subject
from torch import nn

from fedsafe.assess import ClientRecords, Subject
from fedsafe.assess.generalisation.assessor import Generalisation
from fedsafe.assess.generalisation.local_models import own_budget, train_alone
from fedsafe.assess.generalisation.personalisation import Personalisation
from fedsafe.assess.performance.assessor import Performance
from fedsafe.assess.performance.evenness import evenness, jain_index, worst_share, worst_tenth
from fedsafe.client import LocalTraining
from fedsafe.data import Examples
from fedsafe.errors import ConfigError, DataError
from fedsafe.privacy.accounting import COARSE, SampledGaussian, epsilon


class Echo(nn.Module):
    def forward(self, x):
        return x[:, :1]


def records(sizes, right, seed=0, spread=0.0):
    """Records of clients of whom the echo decides a share rightly; each client's share varies by `spread`."""
    rng = np.random.default_rng(seed)
    shares = np.clip(rng.normal(right, spread, len(sizes)), 0, 1)
    correct = np.concatenate([rng.random(n) < p for n, p in zip(sizes, shares, strict=True)])
    x = np.zeros((len(correct), 6), np.float32)
    x[:, 0] = np.where(correct, 1.0, -1.0)
    rows = tuple(np.split(np.arange(len(correct)), np.cumsum(sizes)[:-1]))
    return ClientRecords(examples=Examples(x=x, y=np.ones(len(correct), np.int64)), rows=rows)


def run(assessor, subject, seed=0):
    findings = assessor(subject, rng=np.random.default_rng(seed), tier="cheap")
    return {(f.metric.split(".")[1], *f.where.values()): f for f in findings}


def test_jains_index_is_one_for_equal_scores_and_one_over_n_for_one_who_has_all():
    scores = np.array([[0.4] * 8, [1, 0, 0, 0, 0, 0, 0, 0], [0] * 8, [1, 1, 1, 1, 0, 0, 0, 0]], float)
    assert jain_index(scores) == pytest.approx([1.0, 1 / 8, 1.0, 1 / 2])
    assert jain_index(10 * scores) == pytest.approx(jain_index(scores))


def test_the_worst_tenth_is_a_mean_over_whole_clients():
    scores = np.arange(21.0)[None, ::-1] / 20
    assert worst_tenth(scores) == pytest.approx([0.05])  # the mean of 0, 1/20 and 2/20
    assert worst_tenth(np.array([[0.3, 0.1]])) == pytest.approx([0.1])


def test_evenness_of_clients_is_that_of_their_mean_scores():
    scores = np.repeat(np.linspace(0, 1, 40), 25)
    shards = tuple(np.split(np.arange(1000), 40))
    rng = np.random.default_rng(0)
    found = {f.metric: f for f in evenness(scores, shards, name="score", rng=rng, context={"data": "made"})}
    means = np.linspace(0, 1, 40)
    jain = found["performance.jain_index"]
    assert jain.value == pytest.approx(means.sum() ** 2 / (40 * np.sum(means**2)))
    assert jain.interval[1] < jain.anchors["clients_alike"]
    assert found["performance.worst_decile_score"].value == pytest.approx(means[:4].mean())
    assert found["performance.score_spread"].value == pytest.approx(means.std())


def test_the_worst_share_of_the_clients_is_the_readers_choice():
    scores = np.repeat(np.linspace(0, 1, 40), 25)
    shards = tuple(np.split(np.arange(1000), 40))
    found = evenness(
        scores,
        shards,
        name="accuracy",
        worst=(0.25, 0.05, 0.01),
        rng=np.random.default_rng(0),
        context={"data": "made"},
    )
    worst = {f.where["share"]: f for f in found if f.metric == "performance.worst_clients_accuracy"}
    means = np.linspace(0, 1, 40)
    for share, count in ((0.25, 10), (0.05, 2)):
        assert worst[share].value == pytest.approx(means[:count].mean())
        assert worst[share].interval[0] <= worst[share].value <= worst[share].interval[1]
        assert worst[share].anchors["clients_alike"] > worst[share].interval[1]
    assert (worst[0.01].status, worst[0.01].n) == ("insufficient", 40)
    assert "40 shards have 10 records or more, 200 are needed" in worst[0.01].reason


@pytest.mark.parametrize("share", [0.1, 0.3, 0.25])
def test_a_worst_share_is_rounded_up_to_whole_clients(share):
    scores = np.random.default_rng(0).random((3, 30))
    slow = [np.sort(row)[: -(-round(share * 100) * 30 // 100)].mean() for row in scores]
    assert worst_share(scores, share=share) == pytest.approx(slow)


@pytest.mark.parametrize("assessor", [Performance, Generalisation])
def test_a_share_of_the_clients_is_between_0_and_1(assessor):
    for wrong in (0, 1.0, -0.1, "0.1", True):
        with pytest.raises(ConfigError, match="is no share of the clients: give numbers in"):
            assessor(worst=(wrong,))
    with pytest.raises(ConfigError, match="names a share twice"):
        assessor(worst=(0.1, 0.1))


def test_the_worst_clients_who_took_no_part_are_found():
    rng = np.random.default_rng(0)
    seen, unseen = records([50] * 40, 0.9, 1), records([50] * 40, 0.9, 2)
    x = unseen.examples.x.copy()
    x[: 4 * 50, 0] = np.where(
        rng.random(200) < 0.3, 1.0, -1.0
    )  # four clients of whom few are decided rightly
    unseen = ClientRecords(examples=Examples(x=x, y=unseen.examples.y), rows=unseen.rows)
    subject = replace(make_subject("binary", Echo()), validation=seen, unseen=unseen)
    found = run(Generalisation(), subject)
    bad, good = (found["worst_clients_score", which, 0.1] for which in ("unseen", "seen"))
    assert bad.value == pytest.approx((x[:200, 0] > 0).mean())
    assert bad.interval[1] < good.interval[0]
    assert bad.anchors["clients_alike"] > bad.interval[1]
    assert good.anchors["clients_alike"] == pytest.approx(good.value, abs=0.05)
    few = run(Generalisation(worst=(0.02,)), subject)
    assert few["worst_clients_score", "unseen", 0.02].status == "insufficient"


def test_a_planted_gap_between_seen_and_unseen_clients_is_found():
    subject = replace(
        make_subject("binary", Echo()), validation=records([50] * 40, 0.9), unseen=records([50] * 30, 0.6, 1)
    )
    found = run(Generalisation(), subject)
    gap = found["accuracy_gap",]
    assert gap.value == found["accuracy", "seen"].value - found["accuracy", "unseen"].value
    assert gap.interval[0] <= 0.3 <= gap.interval[1]
    assert gap.interval[0] > 0.2
    assert (gap.n, gap.n_unit, gap.detail["unseen_records"]) == (70, "clients", 1500)


def test_without_a_gap_its_interval_holds_zero_though_clients_differ():
    inside, runs, plain = 0, 200, make_subject("binary", Echo())
    for seed in range(runs):
        subject = replace(
            plain,
            validation=records([20] * 40, 0.7, 2 * seed, 0.2),
            unseen=records([20] * 40, 0.7, 2 * seed + 1, 0.2),
        )
        low, high = run(Generalisation(), subject)["accuracy_gap",].interval
        inside += low <= 0 <= high
    assert inside >= 0.9 * runs


@pytest.mark.parametrize("missing", ["validation", "unseen"])
def test_a_gap_needs_both_kinds_of_clients(missing):
    subject = make_subject("binary")
    found = run(Generalisation(), replace(subject, **{missing: None}))
    assert {f.status for f in found.values()} == {"not_applicable"}
    few = run(Generalisation(), replace(subject, **{missing: records([50] * 4, 0.5)}))
    assert {(f.status, f.n) for f in few.values()} == {("insufficient", 4)}


def opposed(clients=24, size=40):
    """Clients of whom half have the opposite answers: no global model serves both."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (clients * size * 2, 6)).astype(np.float32)
    owner = np.repeat(np.arange(clients), size * 2)
    y = ((x[:, 0] > 0) ^ (owner % 2 == 1)).astype(np.int64)
    examples = Examples(x=x, y=y)
    rows = np.arange(len(y)).reshape(clients, 2, size)
    parts = [tuple(rows[:, side]) for side in (0, 1)]
    return (ClientRecords(examples=examples, rows=part) for part in parts)


def personal(training, *, participations=40, model=None):
    train, own = opposed()
    base = make_subject("binary", nn.Linear(6, 1) if model is None else model)
    with torch.no_grad():
        for parameter in base.model.parameters():
            parameter.zero_()
    federation = replace(
        base.federation,
        own=own,
        training=training,
        participations=participations,
        initial=np.zeros(7, np.float32),
    )
    return replace(base, training=train, federation=federation, previous=None)


PLAIN = LocalTraining(learning_rate=2.0, steps=2, rate=0.5, clip=math.inf, noise=0.0)


def test_clients_with_opposite_answers_gain_by_models_of_their_own():
    found = run(Personalisation(rounds=20), personal(PLAIN))
    assert found["mean_score", "global"].value == pytest.approx(0.5, abs=0.06)
    for which in ("local", "fine_tuned"):
        assert found["mean_score", which].value > 0.9
        gain = found["gain", which]
        means = [found["mean_score", name].value for name in (which, "global")]
        assert gain.value == pytest.approx(means[0] - means[1])
        assert gain.interval[0] > 0.3
        assert gain.detail["clients_that_gain"] > 0.9
        assert "no guarantee" in gain.detail["budget"]
        assert "not released" in gain.released
    assert found["worst_decile_score", "global"].value < found["worst_decile_score", "local"].value


def test_local_models_drown_in_noise_that_an_average_would_not():
    noisy = replace(PLAIN, clip=1.0, noise=50.0)
    found = run(Personalisation(), personal(noisy, participations=2))
    assert found["mean_score", "local"].value < 0.75
    budget = found["gain", "local"].detail["epsilon_of_these_steps"]
    assert budget == epsilon(SampledGaussian(rate=0.5, noise=50.0, count=4), 1e-5, COARSE)
    for which, on_top in (("local", False), ("fine_tuned", True)):
        said = found["gain", which].detail["budget"]
        assert "with secret noise; the noise here is public" in said
        assert ("on top of the run's epsilon" in said) == on_top
    bare = own_budget(replace(personal(noisy).federation, delta=None), 1, fine_tuned=False)
    assert bare["epsilon_of_these_steps"] is None


def test_a_model_trained_alone_is_that_of_gradient_descent_on_the_clients_records():
    subject = personal(replace(PLAIN, rate=1.0))
    start = np.linspace(-0.2, 0.2, 7).astype(np.float32)
    clients = np.array([3, 11])
    found = train_alone(
        subject, subject.federation, subject.training, clients, start, 3, np.random.default_rng(0)
    )
    for client, parameters in zip(clients, found, strict=True):
        model = subject.with_parameters(start).model
        part = subject.training.examples.take(subject.training.rows[client])
        x, y = torch.tensor(part.x), torch.tensor(part.y)
        for _ in range(3 * 2):
            loss = subject.federation.objective(model, (x, y)).mean()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= 2.0 * gradient
        exact = nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
        assert parameters == pytest.approx(exact, abs=1e-5)


def test_clients_with_few_records_of_their_own_are_left_out():
    subject = make_subject("binary")
    own = subject.federation.own
    few = ClientRecords(examples=own.examples, rows=(*(rows[:9] for rows in own.rows[:5]), *own.rows[5:]))
    found = run(Personalisation(), replace(subject, federation=replace(subject.federation, own=few)))
    assert {(f.status, f.n) for f in found.values()} == {("insufficient", 19)}
    bare = run(Personalisation(), replace(subject, federation=replace(subject.federation, own=None)))
    assert {f.status for f in bare.values()} == {"not_applicable"}
    assert Subject.outside(make_model("binary"), subject.task).federation is None


def test_records_of_clients_are_refused_where_they_are_not():
    examples = make_subject("binary").evaluation
    with pytest.raises(DataError, match="at least one client"):
        ClientRecords(examples=examples, rows=())
    with pytest.raises(DataError, match="holds record 480"):
        ClientRecords(examples=examples, rows=(np.array([480]),))
    subject = make_subject("binary")
    own = ClientRecords(examples=examples, rows=(np.arange(3),))
    federation = replace(subject.federation, own=own)
    with pytest.raises(DataError, match="24 clients train, and 1 have records"):
        replace(subject, federation=federation)
    with pytest.raises(DataError, match="0 rounds"):
        replace(subject.federation, participations=0)
