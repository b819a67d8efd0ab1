"""The ledger of the adaptive regime: each choice is on the disk before a message leaves, and is paid for."""

import hashlib
import hmac
import json
import math
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedsafe.errors import BudgetSpent, LedgerError, PlanViolation
from fedsafe.privacy.choices import filter_after
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.levels import FILTERED, ClientPlan, RecordPlan
from fedsafe.privacy.plan import PrivacyPlan

KEY = "f" * 64
PLAN = PrivacyPlan(
    clients=10,
    rounds=6,
    record=RecordPlan(epsilon=1.0, delta=1e-5, clip=1.0, rate=0.1, steps=2, max_participations=6, noise=3.0),
    client=ClientPlan(
        epsilon=2.0, delta=1e-3, clip=1.0, rate=0.3, noise=2.0, grid_bits=37, mechanism=FILTERED, order=8.0
    ),
    program="p",
)  # fmt: skip
PLANNED = replace(PLAN, client=replace(PLAN.client, mechanism="central", order=None))


def digest(round: int) -> bytes:
    return hashlib.sha256(b"%d" % round).digest()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path) -> Iterator[Ledger]:
    ledger = Ledger.create(path, PLAN, key_fingerprint=KEY)
    yield ledger
    ledger.close()


def reserve(ledger: Ledger, round: int, noise: float | None, *cohort: int) -> None:
    ledger.reserve(round=round, digest=digest(round), cohort=cohort, noise=noise)


@pytest.fixture
def filled(path, ledger) -> Path:
    for round, noise in enumerate((4.0, 2.0, 3.0), start=1):
        reserve(ledger, round, noise, 1, 4)
    ledger.close()
    return path


def reopened(path: Path) -> Ledger:
    return Ledger.open(path, PLAN, key_fingerprint=KEY)


def edited(path: Path, sequence: int, change: dict[str, Any]) -> None:
    """An event changed by somebody who reads the salt: this one and all that follow are hashed again."""
    database = sqlite3.connect(path)
    rows = database.execute("SELECT sequence, kind, round, body FROM event ORDER BY sequence").fetchall()
    salt, previous = json.loads(rows[0][3])["salt"], ""
    with database:
        for number, kind, round, text in rows:
            body = json.loads(text)
            if number == sequence:
                body = {k: v for k, v in {**body, **change}.items() if v is not None}
            text = json.dumps(body, sort_keys=True, separators=(",", ":"))
            content = json.dumps([number, kind, round, text, previous]).encode()
            hashed = hmac.digest(salt.encode(), content, "sha256").hex()
            database.execute(
                "UPDATE event SET body = ?, previous = ?, hash = ? WHERE sequence = ?",
                (text, previous, hashed, number),
            )
            previous = hashed
    database.close()


def test_the_filter_is_in_the_first_event_before_anything_is_released(ledger):
    body = ledger.events[0].body
    assert body["plan"] == PLAN.hash
    assert body["filter"] == {**PLAN.client.filter().to_json(), "order": 8.0, "spent": 0.0}


def test_a_choice_is_in_the_event_of_its_round(filled):
    again = reopened(filled)
    assert [event.body["noise"] for event in again.trained] == [4.0, 2.0, 3.0]
    by_hand = PLAN.client.filter()
    for noise in (4.0, 2.0, 3.0):
        by_hand.spend([PLAN.client.chosen(noise)])
    assert filter_after(PLAN, again.trained).spent == by_hand.spent
    assert again.realised()["client"] == pytest.approx(2.0)
    again.close()


def test_a_round_whose_noise_was_not_chosen_is_refused(ledger):
    """A choice that is not recorded, or made after the fact, gets nowhere."""
    with pytest.raises(PlanViolation, match="no noise multiplier was chosen for round 1"):
        reserve(ledger, 1, None, 1)
    assert len(ledger.events) == 1


def test_a_planned_round_whose_noise_was_chosen_is_refused(tmp_path):
    ledger = Ledger.create(tmp_path / "planned", PLANNED, key_fingerprint=KEY)
    with pytest.raises(PlanViolation, match="was chosen for round 1, and the plan fixes 2"):
        reserve(ledger, 1, 3.0, 1)
    reserve(ledger, 1, None, 1)
    assert "noise" not in ledger.events[1].body
    assert "filter" not in ledger.events[0].body
    ledger.close()


@pytest.mark.parametrize("noise", [math.nan, math.inf, 0.0, -1.0, 1e9])
def test_what_is_no_multiplier_leaves_no_trace(ledger, noise):
    with pytest.raises(PlanViolation, match="was chosen: choose a number"):
        reserve(ledger, 1, noise, 1)
    assert len(ledger.events) == 1


def test_a_round_that_overspends_is_refused_and_a_cheaper_one_may_follow(ledger):
    reserve(ledger, 1, 1.2, 1)
    with pytest.raises(BudgetSpent, match=r"spent before round 2: .* of Rényi divergence at order 8"):
        reserve(ledger, 2, 1.2, 1)
    assert len(ledger.events) == 2
    reserve(ledger, 2, 8.0, 1)
    ledger.verify_events()


def test_the_same_round_with_another_choice_is_refused(path, ledger):
    reserve(ledger, 1, 4.0, 1, 2)
    reserve(ledger, 1, 4.0, 1, 2)
    assert len(ledger.events) == 2
    for noise in (4.0 + 1e-12, None):
        with pytest.raises(LedgerError, match="already released with other inputs"):
            reserve(ledger, 1, noise, 1, 2)
    ledger.close()
    again = reopened(path)
    with pytest.raises(LedgerError, match="already released with other inputs"):
        reserve(again, 1, 3.0, 1, 2)
    reserve(again, 1, 4.0, 1, 2)
    again.close()


def test_a_cancelled_choice_is_not_spent(ledger):
    reserve(ledger, 1, 1.2, 1)
    ledger.cancel()
    assert filter_after(PLAN, ledger.trained).spent == 0.0
    reserve(ledger, 1, 1.3, 1)
    ledger.verify_events()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"noise": 0.5}, "event 2, round 2, breaks the plan: these releases cost"),
        ({"noise": None}, "event 2, round 2, breaks the plan: a noise multiplier of None"),
        ({"noise": -2.0}, "event 2, round 2, breaks the plan: a noise multiplier of -2.0"),
    ],
)
def test_an_edited_choice_is_found_even_if_everything_is_hashed_again(filled, change, said):
    edited(filled, 2, change)
    with pytest.raises(LedgerError, match=said):
        reopened(filled)


def test_an_edited_filter_is_found_even_if_everything_is_hashed_again(filled):
    edited(filled, 0, {"filter": {**PLAN.client.filter().to_json(), "budget": 50.0}})
    with pytest.raises(LedgerError, match="opened with the filter"):
        reopened(filled)


def test_an_edited_choice_breaks_the_chain(filled):
    database = sqlite3.connect(filled)
    with database:
        database.execute("UPDATE event SET body = replace(body, '2.0', '9.0') WHERE sequence = 2")
    database.close()
    with pytest.raises(LedgerError, match="chain of the ledger breaks at event 2"):
        reopened(filled)


def test_edits_that_cost_less_are_found_by_the_heads_of_the_record(filled):
    before = reopened(filled)
    head = before.head
    before.close()
    edited(filled, 2, {"noise": 9.0})
    again = reopened(filled)
    with pytest.raises(LedgerError, match="is not the one the run record has seen"):
        again.require_at_least(head.sequence, head.hash)
    again.close()
