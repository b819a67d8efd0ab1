"""A correct run does not cross; a run without noise, or without clip, does. Small versions of benchmarks/audits.py."""

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tiny_federation import parts, plan

from fedsafe.aggregation import NoisyMean
from fedsafe.audit import AuditReport, Setting, audit_run
from fedsafe.audit.client_canaries import CanaryClients
from fedsafe.audit.record_canaries import RecordCanaries
from fedsafe.client import ClientJob
from fedsafe.errors import ConfigError
from fedsafe.rng import Stream, StreamId
from fedsafe.runs.audit_setting import setting_of

KEY = bytes(range(32))
CANARIES = 300


@cache
def setting() -> Setting:
    return made()


def made(noise: float = 4.0, **changes) -> Setting:
    """Nearly every client in every round, and half of its records in every step: nearly every canary takes part."""
    values = {"federation__cohort": {"rate": 0.9}, "client__rate": 0.5, "client__steps": 3, **changes}
    run = parts(**values)
    return setting_of(run, plan(run, noise=noise))


def without_noise(of: Setting) -> Setting:
    return replace(of, training=replace(of.training, noise=0.0))


def without_clip(of: Setting) -> Setting:
    """The noise as it was, and a clip that nothing reaches."""
    training = of.training
    return replace(of, training=replace(training, clip=1e6, noise=training.noise * training.clip / 1e6))


def audited(of: Setting, **options) -> AuditReport:
    return audit_run(of, canaries=CANARIES, key=KEY, **options)


def test_a_correct_run_does_not_cross():
    for kind in ("gradient", "input", "client"):
        report = audited(setting(), kind=kind, every=1)
        assert not report.crossed
        assert report.alarm() is None
        assert [look.round for look in report.looks] == [1, 2, 3]
        last = report.looks[-1]
        assert last.accounted is not None
        assert last.bound.epsilon <= last.accounted < 3.0
        assert report.unit == ("client" if kind == "client" else "record")
        assert 0.35 * CANARIES < report.included < 0.65 * CANARIES
        assert "not for release" in report.warning


@pytest.mark.parametrize("fault", [without_noise, without_clip])
def test_a_run_without_noise_or_without_clip_crosses(fault):
    report = audited(fault(setting()), kind="gradient")
    look = report.looks[-1]
    assert look.accounted is not None
    assert look.accounted <= 3.0
    assert look.bound.epsilon > look.accounted
    assert report.crossed
    alarm = report.alarm()
    assert alarm is not None
    assert "\n" not in alarm
    assert f"{look.accounted:.4g}" in alarm
    assert look.gaussian > look.bound.epsilon


@pytest.mark.parametrize(
    "optimizer", [{"name": "sgd", "lr": 0.5, "momentum": 0.9}, {"name": "adam", "lr": 0.05}]
)
def test_what_the_local_optimiser_does_hides_no_missing_noise(optimizer):
    of = made(client__optimizer=optimizer)
    assert not audited(of).crossed
    assert audited(without_noise(of)).crossed


def test_mislabelled_records_see_missing_noise_too():
    found = [
        audit_run(of, kind="input", canaries=96, key=KEY).looks[-1].bound.epsilon
        for of in (without_noise(setting()), setting())
    ]
    assert found[0] > 0.4
    assert found[1] < 0.2


def test_models_without_a_stacked_rule_are_audited_too():
    of = without_noise(replace(setting(), trainer="vmap"))
    assert audit_run(of, canaries=120, key=KEY).crossed


def test_canary_clients_see_that_the_server_adds_no_noise_or_does_not_clip():
    of = setting()

    def rule(**changes):
        return replace(of, aggregator=lambda plan: replace(NoisyMean.from_plan(plan), **changes))

    level = of.plan.client
    assert not audited(rule(), kind="client").crossed
    silent = audited(rule(noise=0.0), kind="client")
    assert silent.crossed
    look = silent.looks[-1]
    assert look.cosines is not None
    assert look.cosines.bound > look.accounted
    assert min(look.cosines.sum_of_rounds.epsilon, look.cosines.largest_of_rounds.epsilon) > look.accounted
    assert audited(rule(clip=1e3, noise=level.noise * level.clip / 1e3, bits=30), kind="client").crossed


@pytest.mark.parametrize("size", [None, 1, 3])
def test_canary_clients_are_sampled_as_the_runs_own_clients_are(size):
    """Or the upper end of the bracket would be that of another plan: in cohorts of fixed size, of a smaller rate."""
    of = setting()
    of = replace(of, plan=replace(of.plan, client=replace(of.plan.client, cohort_size=size, noise=30.0)))
    rounds, audit = of.plan.rounds, CanaryClients(of, 60, KEY, 0).plan
    assert audit.clients == of.plan.clients + 60
    claimed, accounted = (p.client_epsilon(rounds, rounds) for p in (of.plan, audit))
    assert claimed <= accounted <= 1.1 * claimed
    assert audit.divisor / audit.clients == pytest.approx(of.plan.divisor / of.plan.clients)


def test_coins_do_not_show_in_anything_public():
    of = setting()
    first, second = (RecordCanaries(of, CANARIES, key, 0) for key in (KEY, bytes(32)))
    assert (first.included != second.included).any()
    assert np.array_equal(first.initial, second.initial)
    assert all(np.array_equal(a, b) for a, b in zip(first.records, second.records, strict=True))
    assert [len(rows) for rows in first.records] == [
        len(rows) + CANARIES // len(of.records) for rows in of.records
    ]
    clients, others = (CanaryClients(of, CANARIES, key, 0) for key in (KEY, bytes(32)))
    assert np.array_equal(clients.initial, others.initial)
    assert clients.plan == others.plan


def test_a_canary_pulls_one_clip_through_the_engine_and_nobody_else_moves_its_cell():
    of = without_noise(setting())
    of = replace(of, training=replace(of.training, steps=1, rate=1.0))
    canaries = RecordCanaries(of, CANARIES, KEY, 0)

    def stream(purpose, client):
        return Stream(KEY, StreamId(purpose=purpose, client=client, round=1, digest=b""))

    jobs = [
        ClientJob(client=k, records=rows, batches=stream("batches", k), noise=stream("record noise", k))
        for k, rows in enumerate(canaries.records)
    ]
    canaries.trainer.train(canaries.initial, jobs)
    for client, rows in enumerate(canaries.records):
        mine = np.arange(CANARIES) % len(jobs) == client
        moved = of.training.learning_rate * of.training.clip * (1 - 2**-10) / len(rows)
        expected = np.where(canaries.included[mine], moved, 0.0)
        assert np.allclose(canaries.scores[mine], expected, rtol=1e-4, atol=1e-9)


def test_a_level_without_a_claim_is_looked_at_and_raises_no_alarm():
    of = setting()
    open_level = replace(of.plan.record, epsilon=math.inf)
    report = audited(replace(of, plan=replace(of.plan, record=open_level)))
    assert report.looks[-1].accounted is None
    assert not report.crossed


def test_looks_share_the_allowed_error_and_every_is_checked():
    report = audited(without_noise(setting()), every=1)
    shares = [1 - look.bound.confidence for look in report.looks]
    assert shares == pytest.approx([0.0125, 0.0125, 0.025])
    for bad in ({"every": 0}, {"kind": "other"}):
        with pytest.raises(ConfigError):
            audited(setting(), **bad)
    with pytest.raises(ConfigError, match="prove nothing"):
        audit_run(setting(), canaries=3)


def test_the_report_is_plain_json_and_says_which_figure_is_what():
    report = audited(setting(), kind="client")
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert plain["delta"] == pytest.approx(0.01 / CANARIES)
    assert plain["claimed_delta"] == 1e-3
    assert set(plain["looks"][0]) == {
        "round", "accounted", "bound", "gaussian", "membership", "cosines", "crossed",
    }  # fmt: skip
    assert plain["kinds_of_figures"]["cosines"].startswith("estimates, neither bound")
