"""Whole clients: those of known difference are recognised, those of none are not, and each attack says whose it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import KINDS, make_model, make_subject
from memorising import federated
from sklearn.metrics import roc_auc_score
from torch import nn

from fedsafe.assess import ClientRecords, run_assessors
from fedsafe.assess.privacy.client_attacks import ClientMembership
from fedsafe.assess.privacy.client_scores import (
    cosines,
    fall_of_losses,
    gradients,
    known_records,
    mean_losses,
)
from fedsafe.assess.privacy.trajectory import trajectory_scores
from fedsafe.assess.privacy.uploads import parameters_of
from fedsafe.assess.privacy.visible import rounds_before, visible_models
from fedsafe.data import Examples
from fedsafe.findings import attackers, estimate

AUC, RATE = "client_membership.auc", "client_membership.true_positive_rate"
PLAINLY = ("membership", "client_membership", "inversion")


def run(subject, tier="full", seed=0, **options):
    findings = ClientMembership(**options)(subject, rng=np.random.default_rng(seed), tier=tier)
    return {(f.metric, f.where["attack"], f.where.get("false_positive_rate")): f for f in findings}


def peculiar(members=20, others=20, size=20, seed=0):
    """A subject whose members' labels were learned, each client having a rule of its own, and others' were not."""
    subject, rng = make_subject("binary"), np.random.default_rng(seed)
    count = (members + others) * size
    x = np.concatenate([rng.uniform(-1, 1, (count, 4)), np.eye(2)[rng.integers(0, 2, count)]], axis=1)
    rules = rng.normal(size=(members + others, 4))
    y = np.concatenate(
        [rows[:, :4] @ rule > 0 for rows, rule in zip(np.split(x, members + others), rules, strict=True)]
    ).astype(np.int64)
    examples = Examples(x=x, y=y)
    rows = np.arange(count).reshape(members + others, size)
    half = size // 2
    model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 1))
        initial = nn.utils.parameters_to_vector(model.parameters()).detach().numpy().copy()
        chosen = rows[:members, :half].ravel()
        xs, ys = torch.tensor(examples.x[chosen]), torch.tensor(examples.y[chosen])
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        for _ in range(200):
            optimizer.zero_grad()
            subject.federation.objective(model, (xs, ys)).mean().backward()
            optimizer.step()
    own = ClientRecords(examples=examples, rows=tuple(r[half:] for r in rows[:members]))
    training = ClientRecords(examples=examples, rows=tuple(r[:half] for r in rows[:members]))
    unseen = ClientRecords(examples=examples, rows=tuple(r[:half] for r in rows[members:]))
    federation = replace(subject.federation, own=own, initial=initial)
    return replace(
        subject,
        model=model.eval(),
        training=training,
        unseen=unseen,
        federation=federation,
        previous=None,
        validation=None,
    )


def without_noise(subject):
    training = replace(subject.federation.training, noise=0.0, clip=np.inf, rate=1.0)
    return replace(subject, federation=replace(subject.federation, training=training))


def test_clients_that_were_learned_by_heart_are_found_by_everyone():
    subject = peculiar()
    halfway = (parameters_of(subject.model) + subject.federation.initial) / 2
    seen = replace(subject, federation=replace(subject.federation, broadcast=(halfway,)))
    found = run(seen)
    assert run(subject)[AUC, "loss trajectory of a client", None].status == "not_applicable"
    for attack in ("fall of a client's loss", "loss trajectory of a client"):
        assert found[AUC, attack, None].interval[0] > 0.6, attack
        assert found[AUC, attack, None].detail["curve"]


def test_a_step_points_to_the_clients_that_it_was_made_of():
    subject = peculiar(members=8, others=40)
    federation = subject.federation
    initial = subject.with_parameters(federation.initial)
    known = known_records(subject.training, np.arange(8), 20, np.random.default_rng(0))
    mean = gradients(initial, federation, known).mean(axis=0)
    stepped = subject.with_parameters((federation.initial - 0.5 * mean).astype(np.float32))
    found = run(stepped)[AUC, "direction of the model", None]
    assert found.interval[0] > 0.5
    away = subject.with_parameters((federation.initial + 0.5 * mean).astype(np.float32))
    assert run(away)[AUC, "direction of the model", None].value == pytest.approx(1 - found.value)


def test_clients_that_took_no_part_are_not_found():
    subject, inside = peculiar(), []
    for seed in range(12):
        other = peculiar(seed=seed + 1)
        # The model of another federation: the members are as unknown to it as the others.
        found = run(
            replace(
                other,
                model=subject.model,
                federation=replace(other.federation, initial=subject.federation.initial),
            ),
            "cheap",
        )
        low, high = found[AUC, "fall of a client's loss", None].interval
        inside.append(low <= 0.5 <= high)
    assert np.mean(inside) >= 0.75


def test_a_server_knows_a_client_by_its_upload_and_not_through_much_noise():
    clear = run(without_noise(peculiar(members=40)))[AUC, "cosine with uploads", None]
    assert clear.interval[0] > 0.6
    noised = peculiar(members=40)
    training = replace(noised.federation.training, noise=20.0, clip=1.0)
    drowned = run(replace(noised, federation=replace(noised.federation, training=training)))
    low, high = drowned[AUC, "cosine with uploads", None].interval
    assert low <= 0.5 <= high
    assert drowned[AUC, "cosine with uploads", None].detail["noise_multiplier"] == 20.0


def test_rates_need_ten_expected_false_positives():
    found = run(peculiar(others=30), rates=(0.5, 0.1))
    assert found[RATE, "fall of a client's loss", 0.5].status == "measured"
    few = found[RATE, "fall of a client's loss", 0.1]
    assert (few.status, few.value) == ("insufficient", None)
    assert "100 are needed" in few.reason


def test_without_clients_that_took_no_part_nothing_is_said():
    subject = make_subject("binary")
    for lacking in ({"unseen": None}, {"federation": None}, {"training": None, "federation": None}):
        found = run(replace(subject, **lacking))
        assert {(f.status, f.value) for f in found.values()} == {("not_applicable", None)}
    few = replace(subject.unseen, rows=subject.unseen.rows[:4])
    assert {f.status for f in run(replace(subject, unseen=few)).values()} == {"insufficient"}


def test_without_records_of_their_own_uploads_are_not_judged():
    subject = make_subject("binary")
    found = run(replace(subject, federation=replace(subject.federation, own=None)))
    assert found[AUC, "cosine with uploads", None].status == "not_applicable"


def test_mean_losses_and_their_course_are_those_of_a_loop():
    subject = make_subject("binary")
    known = known_records(subject.training, np.array([0, 3, 5]), 7, np.random.default_rng(0))
    assert [len(examples) for examples in known] == [7, 7, 7]
    assert mean_losses(subject, known) == pytest.approx(
        [subject.per_record(examples)[0].mean() for examples in known]
    )
    models = visible_models(subject)
    assert len(models) == 3  # before training, the last accepted one, the judged one
    table = np.array([[m.per_record(examples)[0].mean() for m in models] for examples in known])
    fall, course = fall_of_losses(models, known)
    assert fall == pytest.approx(table[:, 0] - table[:, -1])
    assert course == pytest.approx((table[:, :1] - table[:, 1:]).mean(1))


def test_models_that_were_kept_take_the_place_of_the_last_accepted_one():
    subject = make_subject("binary")
    kept = tuple(
        nn.utils.parameters_to_vector(make_model("binary", seed).parameters()).detach().numpy()
        for seed in (11, 12)
    )
    models = visible_models(replace(subject, federation=replace(subject.federation, broadcast=kept)))
    assert len(models) == 4
    for model, parameters in zip(models, (subject.federation.initial, *kept), strict=False):
        assert nn.utils.parameters_to_vector(model.model.parameters()).detach().numpy() == pytest.approx(
            parameters
        )


def test_a_few_rounds_stand_for_all_before_and_the_last_is_among_them():
    assert [rounds_before(r) for r in (1, 2, 4, 40)] == [[], [1], [1, 2, 3], [1, 10, 20, 30, 39]]


def test_cosines_are_zero_of_what_is_nothing():
    rows = np.array([[1.0, 0.0], [0.0, 0.0], [np.inf, 1.0], [3.0, 4.0]])
    assert cosines(rows, np.tile([1.0, 0.0], (4, 1))).tolist() == [1.0, 0.0, 0.0, 0.6]


def test_the_trajectory_rule_is_fitted_on_one_half_and_judged_on_the_other():
    rng = np.random.default_rng(0)
    early = rng.exponential(1.0, (2000, 1))
    members = np.concatenate([early[:1000], early[:1000] * rng.uniform(0.3, 0.9, (1000, 1))], axis=1)
    others = np.concatenate([early[1000:], early[1000:] * rng.uniform(0.6, 1.2, (1000, 1))], axis=1)
    scores, of_others, asked, asked_others = trajectory_scores(members, others, rng)
    assert (len(scores), len(asked), len(set(asked.tolist()))) == (500, 500, 500)
    found = roc_auc_score(np.repeat([1, 0], [500, 500]), np.concatenate([scores, of_others]))
    by_last = roc_auc_score(
        np.repeat([1, 0], [500, 500]), -np.concatenate([members[asked, 1], others[asked_others, 1]])
    )
    assert found > by_last + 0.1  # the change tells more than the loss
    # Losses that tell nothing: a rule fitted and judged on the same records would seem to.
    same = rng.exponential(1.0, (400, 8))
    scores, of_others, *_ = trajectory_scores(same[:200], same[200:], rng)
    assert 0.38 < roc_auc_score(np.repeat([1, 0], [100, 100]), np.concatenate([scores, of_others])) < 0.62


def test_membership_by_trajectory_finds_a_memorising_model():
    subject = federated(seed=0, rounds=12)
    found = run_assessors(subject, [{"name": "membership", "shadows": 0}], rng_seed=0, tier="full")[
        "membership"
    ]
    (area,) = [f for f in found if f.metric == "membership.auc" and f.where["attack"] == "loss trajectory"]
    assert area.interval[0] > 0.5
    assert area.detail["models"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_finding_names_its_adversary_and_calls_no_low_score_private(kind):
    subject = make_subject(kind)
    found = run_assessors(
        subject,
        [
            {"name": "membership", "shadows": 4},
            "client_membership",
            {"name": "inversion", "iterations": 5, "matched": 2},
        ],
        rng_seed=0,
        tier="full",
    )
    seen = set()
    for name in PLAINLY:
        assert found[name]
        for finding in found[name]:
            detail = finding.detail
            assert detail["adversary"] in ("server", "client", "outsider")
            assert detail["sees"]
            assert detail["costs"]
            assert detail["attack"] == finding.where["attack"]
            seen.add(detail["adversary"])
            statement = detail["statement"].lower()
            for word in ("private", "privacy", "safe", "secure", "protected", "anonymous", "no leak"):
                assert word not in statement, statement
            if "not told from guessing" in statement:
                assert "stronger attack may find more" in statement
    assert "server" in seen


def test_chance_is_said_where_the_interval_holds_it_and_only_there():
    found = run(peculiar(), "cheap")
    told = found[AUC, "fall of a client's loss", None]
    assert "better than guessing" in told.detail["statement"]
    found = run(make_subject("binary"), "cheap")
    assert "not told from guessing" in found[AUC, "fall of a client's loss", None].detail["statement"]


def test_one_page_has_every_attack_with_its_adversary_and_the_audits_bracket():
    subject = peculiar()
    found = run_assessors(
        subject, ["client_membership", "inversion", "performance"], rng_seed=0, tier="cheap"
    )
    lines = [finding.to_json() for group in found.values() for finding in group]
    audit = estimate(
        "privacy.audited_epsilon",
        1.2,
        interval=(1.2, 3.0),
        method="bracket",
        where={"unit": "client", "canaries": "client"},
        detail={
            "adversary": "an outsider",
            "sees": "models",
            "costs": "a training",
            "statement": "More than 1.2.",
        },
    )
    rows = attackers([*lines, audit.to_json()])
    assert {row.unit for row in rows} == {"record", "client"}
    assert [row.metric for row in rows].count("client_membership.auc") == 1
    for row in rows:
        assert row.adversary
        assert row.sees
        assert row.costs
        assert row.statement
        assert row.value is not None
    assert (rows[-1].interval, rows[-1].chance) == ((1.2, 3.0), None)
    assert any(row.attack.startswith("analytic (noise: none") and row.chance == 0.0 for row in rows)
