"""What is reserved is spent: it is taken back only where no message can have left. And clients with rules apart."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedsafe.errors import LedgerError, PlanViolation
from fedsafe.privacy.chain import CANCELLED
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.levels import ClientPlan, RecordPlan
from fedsafe.privacy.plan import PrivacyPlan

KEY = "f" * 64
PLAN = PrivacyPlan(
    clients=10,
    rounds=6,
    record=RecordPlan(epsilon=1.0, delta=1e-5, clip=1.0, rate=0.1, steps=2, max_participations=3, noise=3.0),
    client=ClientPlan(epsilon=1.0, delta=1e-3, clip=1.0, rate=0.3, noise=9.0, grid_bits=40),
    program="p",
)


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


def reserve(ledger: Ledger, round: int, *cohort: int) -> None:
    ledger.reserve(round=round, digest=digest(round), cohort=cohort)


def test_a_cancelled_round_is_not_spent_and_can_be_reserved_again(path, ledger):
    reserve(ledger, 1, 2, 5)
    ledger.cancel()
    assert +ledger.participations == {}
    assert ledger.realised() == PLAN.spend(0, 0)
    reserve(ledger, 1, 2, 5)
    ledger.departs()
    ledger.verify_events()
    ledger.close()
    again = Ledger.open(path, PLAN, key_fingerprint=KEY)
    assert [event.kind for event in again.events] == ["plan", "round", CANCELLED, "round"]
    assert again.participations == {2: 1, 5: 1}
    again.verify_events()
    again.close()


def test_once_a_message_may_have_left_nothing_is_taken_back(ledger):
    reserve(ledger, 1, 2)
    ledger.departs()
    before = ledger.head
    with pytest.raises(PlanViolation, match="may have left, so it is spent"):
        ledger.cancel()
    assert ledger.head == before
    assert ledger.participations == {2: 1}


def test_a_reservation_of_an_earlier_process_is_not_taken_back(path, ledger):
    """Nobody knows whether it sent anything before it ended."""
    reserve(ledger, 1, 2)
    ledger.close()
    again = Ledger.open(path, PLAN, key_fingerprint=KEY)
    reserve(again, 1, 2)
    with pytest.raises(PlanViolation, match="event 1 cannot be cancelled"):
        again.cancel()
    again.close()


def test_neither_the_plan_nor_a_cancellation_can_be_cancelled(ledger):
    with pytest.raises(PlanViolation):
        ledger.cancel()
    reserve(ledger, 1, 2)
    ledger.cancel()
    with pytest.raises(PlanViolation):
        ledger.cancel()


def test_a_round_cannot_be_skipped_by_cancelling_it(ledger):
    reserve(ledger, 1, 2)
    ledger.cancel()
    with pytest.raises(PlanViolation, match="round 2 was asked for after round 0"):
        reserve(ledger, 2, 2)


def test_an_edited_cancellation_is_detected(path, ledger):
    import sqlite3

    reserve(ledger, 1, 2)
    ledger.cancel()
    ledger.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE event SET body = '{\"of\":0}' WHERE kind = 'cancelled'")
    database.close()
    with pytest.raises(LedgerError):
        Ledger.open(path, PLAN, key_fingerprint=KEY)


def test_a_cancellation_that_is_appended_to_win_a_round_back_is_refused(path, ledger):
    """The salt is in the file: whoever holds it can hash, and all heads that the record has seen still match."""
    import sqlite3

    from fedsafe.privacy.chain import append, read_chain

    for round in (1, 2, 3):
        reserve(ledger, round, 0)
    salt = ledger.events[0].body["salt"]
    ledger.close()
    database = sqlite3.connect(path)
    with database:
        last = list(read_chain(database))[-1]
        append(database, salt, kind=CANCELLED, round=1, body={"of": 1}, previous=last)
        database.execute("DELETE FROM release WHERE round = 1")
    database.close()
    with pytest.raises(LedgerError, match="cancels another than the one before it"):
        Ledger.open(path, PLAN, key_fingerprint=KEY)


class TestBudgetsOfClients:
    @pytest.fixture
    def capped(self, path) -> Iterator[Ledger]:
        plan = replace(PLAN, record=replace(PLAN.record, caps=((4, 1), (7, 0))))
        ledger = Ledger.create(path, plan, key_fingerprint=KEY)
        yield ledger
        ledger.close()

    def test_a_client_beyond_its_own_budget_is_left_out_and_refused(self, capped):
        assert capped.within_cap([3, 4, 7], 1) == [3, 4]
        reserve(capped, 1, 3, 4)
        assert capped.within_cap([3, 4, 7], 2) == [3]
        with pytest.raises(PlanViolation, match="client 4 has used its 1 planned"):
            reserve(capped, 2, 3, 4)
        with pytest.raises(PlanViolation, match="client 7 has used its 0 planned"):
            reserve(capped, 2, 7)
        assert capped.head.sequence == 1


class TestSeparation:
    @pytest.fixture
    def apart(self, path) -> Iterator[Ledger]:
        plan = replace(PLAN, client=replace(PLAN.client, separation=3))
        ledger = Ledger.create(path, plan, key_fingerprint=KEY)
        yield ledger
        ledger.close()

    def test_a_client_comes_back_after_the_planned_number_of_rounds(self, apart):
        reserve(apart, 1, 1)
        for round in (2, 3):
            assert apart.within_cap([1, 2], round) == [2]
            with pytest.raises(PlanViolation, match="client 1 took part less than 3 rounds before"):
                reserve(apart, round, 1)
            reserve(apart, round)
        assert apart.within_cap([1, 2], 4) == [1, 2]
        reserve(apart, 4, 1)
        apart.verify_events()

    def test_asking_again_for_a_round_gives_the_same_clients(self, apart):
        reserve(apart, 1, 1)
        reserve(apart, 2, 2)
        assert apart.within_cap([1, 2, 3], 2) == [2, 3]
        assert apart.within_cap([1, 2, 3], 1) == [1, 2, 3]
