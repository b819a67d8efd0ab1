"""The ledger is durable, refuses what is outside the plan, and shows every tampering."""

import hashlib
import hmac
import json
import math
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsafe.errors import LedgerError, PlanViolation
from fedsafe.privacy.chain import read_events
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.levels import ClientPlan, RecordPlan
from fedsafe.privacy.plan import PrivacyPlan

KEY = "f" * 64


def plan_of(rounds: int = 5, cap: int = 2, clients: int = 10) -> PrivacyPlan:
    """By hand: calibration costs seconds and has its own tests."""
    return PrivacyPlan(
        clients=clients,
        rounds=rounds,
        record=RecordPlan(
            epsilon=1.0, delta=1e-5, clip=1.0, rate=0.1, steps=2, max_participations=cap, noise=3.0
        ),
        client=ClientPlan(epsilon=1.0, delta=1e-3, clip=1.0, rate=0.3, noise=9.0, grid_bits=40),
        program="p",
    )


PLAN = plan_of()


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


@pytest.fixture
def filled(path, ledger) -> Path:
    """Three rounds, closed."""
    for round, cohort in ((1, [0, 1]), (2, [1, 4]), (3, [0])):
        ledger.reserve(round=round, digest=digest(round), cohort=cohort)
    ledger.close()
    return path


def reopened(path: Path, plan: PrivacyPlan = PLAN, key: str = KEY) -> Ledger:
    return Ledger.open(path, plan, key_fingerprint=key)


def tamper(path: Path, *statements: str) -> None:
    database = sqlite3.connect(path)
    with database:
        for statement in statements:
            database.execute(statement)
    database.close()


def content(path: Path) -> list[Any]:
    return [(event.kind, event.round, event.body, event.hash) for event in read_events(path)]


class TestReserve:
    def test_an_event_is_on_the_disk_when_reserve_returns(self, path, ledger):
        ledger.reserve(round=1, digest=digest(1), cohort=[2, 5])
        script = (
            "import json, sys; from pathlib import Path; from fedsafe.privacy.chain import read_events\n"
            "print(json.dumps([[e.round, e.body.get('cohort')] for e in read_events(Path(sys.argv[1]))]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == [[0, None], [1, [2, 5]]]

    def test_every_commit_waits_for_the_disk(self, ledger):
        """A kill cannot show the difference, a power cut would: FULL is 2."""
        assert ledger._database.execute("PRAGMA synchronous").fetchone() == (2,)

    def test_the_same_release_is_counted_once(self, path, ledger):
        head = ledger.reserve(round=1, digest=digest(1), cohort=[2, 5])
        before = content(path)
        assert ledger.reserve(round=1, digest=digest(1), cohort=[2, 5]) == head
        assert content(path) == before
        assert ledger.participations == {2: 1, 5: 1}

    def test_it_is_counted_once_across_a_restart_too(self, path, ledger):
        head = ledger.reserve(round=1, digest=digest(1), cohort=[2, 5])
        ledger.close()
        again = reopened(path)
        assert again.reserve(round=1, digest=digest(1), cohort=[2, 5]) == head
        assert again.participations == {2: 1, 5: 1}
        again.close()

    @pytest.mark.parametrize(
        ("other_digest", "cohort"),
        [(digest(9), [2, 5]), (digest(1), [2]), (digest(1), [2, 5, 6]), (digest(1), [])],
    )
    def test_the_same_round_with_other_inputs_is_refused_and_leaves_no_trace(
        self, path, ledger, other_digest, cohort
    ):
        """Old noise may only be drawn again for the input that it was drawn for."""
        ledger.reserve(round=1, digest=digest(1), cohort=[2, 5])
        before = content(path)
        with pytest.raises(LedgerError, match="already released with other inputs"):
            ledger.reserve(round=1, digest=other_digest, cohort=cohort)
        assert content(path) == before
        assert ledger.participations == {2: 1, 5: 1}

    @pytest.mark.parametrize(
        ("round", "cohort", "message"),
        [
            (0, [1], "rounds are released in order"),
            (2, [1], "rounds are released in order"),
            (-1, [1], "rounds are released in order"),
            (1, [10], "not one of the 10 registered"),
            (1, [-1], "not one of the 10 registered"),
            (1, [3, 3], "twice"),
        ],
    )
    def test_what_is_outside_the_plan_is_refused_and_leaves_no_trace(
        self, path, ledger, round, cohort, message
    ):
        before = content(path)
        with pytest.raises(PlanViolation, match=message):
            ledger.reserve(round=round, digest=digest(1), cohort=cohort)
        assert content(path) == before
        assert not ledger.participations
        ledger.reserve(round=1, digest=digest(1), cohort=[1])

    def test_a_round_beyond_the_plan_is_refused(self, path, ledger):
        for round in range(1, 6):
            ledger.reserve(round=round, digest=digest(round), cohort=[])
        with pytest.raises(PlanViolation, match="outside the plan of 5 rounds"):
            ledger.reserve(round=6, digest=digest(6), cohort=[])
        assert len(content(path)) == 6

    def test_a_client_over_its_cap_is_refused_and_leaves_no_trace(self, path, ledger):
        for round in (1, 2):
            ledger.reserve(round=round, digest=digest(round), cohort=[4])
        before = content(path)
        with pytest.raises(PlanViolation, match="client 4 has used its 2 planned participations"):
            ledger.reserve(round=3, digest=digest(3), cohort=[1, 4])
        assert content(path) == before
        assert ledger.participations == {4: 2}
        ledger.reserve(round=3, digest=digest(3), cohort=[1])

    def test_an_empty_cohort_is_an_event_and_is_counted(self, ledger):
        head = ledger.reserve(round=1, digest=digest(1), cohort=[])
        assert head.sequence == 1
        assert ledger.realised()["client"] == PLAN.spend(1)["client"] > 0

    def test_a_second_handle_cannot_release_a_round_again(self, path, ledger):
        """Two processes on one ledger: the later one is refused with an error of ours."""
        late = reopened(path)
        ledger.reserve(round=1, digest=digest(1), cohort=[1])
        with pytest.raises(LedgerError):
            late.reserve(round=1, digest=digest(1), cohort=[1, 2])
        late.close()
        assert [event.body.get("cohort") for event in read_events(path)] == [None, [1]]

    def test_numpy_integers_are_plain_numbers_in_the_ledger(self, path, ledger):
        import numpy as np

        ledger.reserve(round=1, digest=digest(1), cohort=np.array([1, 2]))
        assert read_events(path)[1].body["cohort"] == [1, 2]


class TestCap:
    def test_only_clients_below_their_cap_are_let_in(self, ledger):
        ledger.reserve(round=1, digest=digest(1), cohort=[1, 2])
        ledger.reserve(round=2, digest=digest(2), cohort=[1])
        assert ledger.within_cap([0, 1, 2], 3) == [0, 2]

    def test_the_round_itself_and_later_ones_do_not_count(self, ledger):
        """A resumed run asks again for rounds that are reserved, and must get the same cohort."""
        for round in (1, 2):
            ledger.reserve(round=round, digest=digest(round), cohort=[1])
        assert ledger.within_cap([1], 1) == [1]
        assert ledger.within_cap([1], 2) == [1]
        assert ledger.within_cap([1], 3) == []

    def test_what_it_lets_in_can_be_reserved(self, ledger):
        rng = random.Random(0)
        for round in range(1, 6):
            drawn = sorted(rng.sample(range(10), 6))
            cohort = ledger.within_cap(drawn, round)
            ledger.reserve(round=round, digest=digest(round), cohort=cohort)
        assert max(ledger.participations.values()) == 2
        ledger.verify_events()


class TestRealised:
    def test_it_is_never_above_the_plan(self, ledger):
        rng = random.Random(1)
        planned = PLAN.spend(PLAN.rounds)
        for round in range(1, 6):
            cohort = ledger.within_cap([c for c in range(10) if rng.random() < 0.4], round)
            ledger.reserve(round=round, digest=digest(round), cohort=cohort)
            realised = ledger.realised()
            assert realised["record"] <= planned["record"]
            assert realised["client"] <= planned["client"]

    def test_it_is_the_worst_clients_and_not_a_mean(self, ledger):
        ledger.reserve(round=1, digest=digest(1), cohort=[1, 2, 3])
        ledger.reserve(round=2, digest=digest(2), cohort=[1])
        assert ledger.realised()["record"] == PLAN.spend(2, 2)["record"] > PLAN.spend(2, 1)["record"]

    def test_it_composes_over_rounds_and_does_not_start_again(self, path, ledger):
        """Elsewhere a new accountant each round showed one round's epsilon for ever."""
        ledger.reserve(round=1, digest=digest(1), cohort=[1])
        one = ledger.realised()
        ledger.close()
        again = reopened(path)
        again.reserve(round=2, digest=digest(2), cohort=[1])
        two = again.realised()
        again.close()
        assert two["record"] > 1.2 * one["record"]
        assert two["client"] > 1.2 * one["client"]

    def test_a_level_without_noise_is_null(self, path):
        from dataclasses import replace

        plan = replace(PLAN, client=replace(PLAN.client, epsilon=math.inf, noise=0.0))
        ledger = Ledger.create(path, plan, key_fingerprint=KEY)
        ledger.reserve(round=1, digest=digest(1), cohort=[1])
        assert ledger.realised()["client"] is None
        ledger.close()


class TestOpening:
    def test_it_comes_back_as_it_was(self, filled):
        ledger = reopened(filled)
        assert ledger.participations == {0: 2, 1: 2, 4: 1}
        assert ledger.head.sequence == 3
        assert ledger.plan == PLAN
        ledger.verify_events()
        ledger.close()

    def test_it_is_readable_by_its_owner_alone(self, path, ledger):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_permissions_do_not_depend_on_the_umask(self, path):
        before = os.umask(0)
        try:
            Ledger.create(path, PLAN, key_fingerprint=KEY).close()
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_an_existing_ledger_is_never_overwritten(self, filled):
        before = filled.read_bytes()
        with pytest.raises(LedgerError, match="exists already"):
            Ledger.create(filled, PLAN, key_fingerprint=KEY)
        assert filled.read_bytes() == before

    def test_another_key_is_refused(self, filled):
        with pytest.raises(LedgerError, match="noise key is not the one"):
            reopened(filled, key="e" * 64)

    def test_another_plan_is_refused(self, filled):
        with pytest.raises(PlanViolation, match="a plan cannot change"):
            reopened(filled, plan=plan_of(rounds=6))

    def test_a_missing_ledger_is_refused_and_not_made(self, path):
        with pytest.raises(LedgerError, match="is missing"):
            reopened(path)
        assert not path.exists()

    def test_a_file_that_was_refused_is_released(self, filled):
        """A handle left open would keep the file busy for the backup that is to be restored."""
        with pytest.raises(LedgerError):
            reopened(filled, key="e" * 64)
        held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)]
        assert str(filled) not in held


def _is_link(descriptor: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{descriptor}")


EDITS = {
    "the last event is deleted": ["DELETE FROM event WHERE sequence = 3"],
    "the last two events are deleted": ["DELETE FROM event WHERE sequence >= 2"],
    "a middle event is deleted": ["DELETE FROM event WHERE sequence = 2"],
    "all events are deleted": ["DELETE FROM event"],
    "everything is deleted": ["DELETE FROM event", "DELETE FROM release"],
    "the plan event and its salt are deleted": ["DELETE FROM event WHERE sequence = 0"],
    "a release is deleted": ["DELETE FROM release WHERE round = 2"],
    "the last release is deleted": ["DELETE FROM release WHERE round = 3"],
    "a release is added": ["INSERT INTO release VALUES ('round', 4, 'ab')"],
    "a release is edited": ["UPDATE release SET digest = 'ab' WHERE round = 1"],
    "a cohort is edited": ["UPDATE event SET body = replace(body, '[1,4]', '[4]') WHERE sequence = 2"],
    "the last cohort is edited": ["UPDATE event SET body = replace(body, '[0]', '[]') WHERE sequence = 3"],
    "a round is edited": ["UPDATE event SET round = 7 WHERE sequence = 2"],
    "a kind is edited": ["UPDATE event SET kind = 'note' WHERE sequence = 2"],
    "the key is edited": [f"UPDATE event SET body = replace(body, '{KEY}', '{'e' * 64}') WHERE sequence = 0"],
    "a hash is edited": ["UPDATE event SET hash = 'ab' WHERE sequence = 1"],
    "a link is edited": ["UPDATE event SET previous = 'ab' WHERE sequence = 2"],
    "two events are swapped": [
        "UPDATE event SET sequence = 9 WHERE sequence = 1",
        "UPDATE event SET sequence = 1 WHERE sequence = 2",
        "UPDATE event SET sequence = 2 WHERE sequence = 9",
    ],
    "a body is no text": ["UPDATE event SET body = x'00ff' WHERE sequence = 2"],
    "a body is not JSON": ["UPDATE event SET body = '{' WHERE sequence = 2"],
    "a table is dropped": ["DROP TABLE release"],
}


class TestTampering:
    @pytest.mark.parametrize("edit", EDITS)
    def test_it_is_detected_from_the_file_alone(self, filled, edit):
        tamper(filled, *EDITS[edit])
        with pytest.raises(LedgerError):
            reopened(filled)
        if edit != "everything is deleted":
            with pytest.raises(LedgerError):
                read_events(filled)

    @pytest.mark.parametrize("sequence", [1, 2])
    def test_an_edited_row_with_its_hash_computed_again_breaks_the_next_link(self, filled, sequence):
        _rewrite(filled, sequence)
        with pytest.raises(LedgerError, match="chain of the ledger breaks"):
            reopened(filled)

    def test_an_edited_last_row_with_its_hash_computed_again_is_caught_by_the_record(self, filled):
        seen = reopened(filled)
        head = seen.head
        seen.close()
        _rewrite(filled, 3)
        edited = reopened(filled)
        with pytest.raises(LedgerError, match="edited or replaced"):
            edited.require_at_least(head.sequence, head.hash)
        edited.close()

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.99])
    def test_a_file_cut_at_any_place_is_refused(self, filled, share):
        with filled.open("r+b") as file:
            file.truncate(int(filled.stat().st_size * share))
        with pytest.raises(LedgerError):
            reopened(filled)

    def test_a_file_that_is_no_database_is_refused(self, path):
        path.write_bytes(b"not a database, but long enough to have a header " * 100)
        with pytest.raises(LedgerError):
            reopened(path)

    def test_an_older_copy_is_caught_by_what_the_record_has_seen(self, filled, tmp_path):
        older = tmp_path / "older.sqlite"
        shutil.copy(filled, older)
        ledger = reopened(filled)
        head = ledger.reserve(round=4, digest=digest(4), cohort=[5])
        ledger.require_at_least(head.sequence, head.hash)
        ledger.close()
        shutil.copy(older, filled)
        restored = reopened(filled)  # an honest ledger by itself
        with pytest.raises(LedgerError, match="truncated, or is an older copy"):
            restored.require_at_least(head.sequence, head.hash)
        restored.close()

    def test_another_runs_ledger_of_the_same_plan_is_caught_by_what_the_record_has_seen(
        self, filled, tmp_path
    ):
        other = Ledger.create(tmp_path / "other.sqlite", PLAN, key_fingerprint=KEY)
        heads = [other.reserve(round=r, digest=digest(r), cohort=c) for r, c in ((1, [0, 1]), (2, [1, 4]))]
        ledger = reopened(filled)
        with pytest.raises(LedgerError, match="edited or replaced"):
            ledger.require_at_least(heads[-1].sequence, heads[-1].hash)
        ledger.close()
        other.close()

    def test_an_earlier_head_of_the_same_ledger_is_accepted(self, filled):
        ledger = reopened(filled)
        for event in ledger.events:
            ledger.require_at_least(event.sequence, event.hash)
        ledger.close()

    def test_events_beyond_the_plan_are_found_by_an_audit_of_the_events(self, filled):
        """Whoever rewrites the whole chain still has to keep inside the plan."""
        _rewrite(filled, 3, cohort=[1])
        with pytest.raises(LedgerError, match="took part in 3 rounds"):
            reopened(filled)


def _rewrite(path: Path, sequence: int, cohort: list[int] | None = None) -> None:
    database = sqlite3.connect(path)
    with database:
        kind, round, text, previous = database.execute(
            "SELECT kind, round, body, previous FROM event WHERE sequence = ?", (sequence,)
        ).fetchone()
        body = json.dumps({**json.loads(text), "cohort": cohort or []}, sort_keys=True, separators=(",", ":"))
        opening = database.execute("SELECT body FROM event WHERE sequence = 0").fetchone()[0]
        content = json.dumps([sequence, kind, round, body, previous]).encode()
        hashed = hmac.digest(json.loads(opening)["salt"].encode(), content, "sha256").hex()
        database.execute("UPDATE event SET body = ?, hash = ? WHERE sequence = ?", (body, hashed, sequence))
    database.close()


class TestSecrecy:
    def test_two_ledgers_with_the_same_events_have_different_heads(self, tmp_path):
        """A head is printed outside ``private/``: without salt it would let anyone test a guess of the cohort."""
        heads = []
        for name in ("a", "b"):
            ledger = Ledger.create(tmp_path / name, PLAN, key_fingerprint=KEY)
            heads.append([ledger.head, ledger.reserve(round=1, digest=digest(1), cohort=[1, 2])])
            ledger.close()
        assert heads[0][0].hash != heads[1][0].hash
        assert heads[0][1].hash != heads[1][1].hash

    def test_no_head_can_be_told_from_public_files_even_by_who_knows_everything_but_the_cohort(self, ledger):
        """Every round's hash is keyed, not only the first: else two hashes would tell whether a client was there."""
        for round in (1, 2):
            before = ledger.head.hash
            head = ledger.reserve(round=round, digest=digest(round), cohort=[1, 2])
            body = json.dumps(
                {"digest": digest(round).hex(), "cohort": [1, 2]}, sort_keys=True, separators=(",", ":")
            )
            content = json.dumps([head.sequence, "round", round, body, before]).encode()
            guesses = [hashlib.sha256(content).hexdigest()]
            guesses += [
                hmac.digest(key, content, "sha256").hex() for key in (b"", before.encode(), bytes(32))
            ]
            assert head.hash not in guesses

    def test_the_salt_has_256_bits_and_the_head_does_not_show_it(self, path, ledger):
        salt = read_events(path)[0].body["salt"]
        assert len(bytes.fromhex(salt)) == 32
        assert salt not in ledger.head.hash


CHILD = """
import hashlib, os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_ledger import KEY, plan_of
from fedsafe.privacy.ledger import Ledger
plan = plan_of(rounds=100_000, cap=100_000)
path = Path(sys.argv[1])
ledger = (Ledger.open if path.exists() else Ledger.create)(path, plan, key_fingerprint=KEY)
for round in range(ledger.events[-1].round + 1, 100_001):
    head = ledger.reserve(round=round, digest=hashlib.sha256(b"%d" % round).digest(), cohort=[round % 10])
    os.write(1, b"%d %s\\n" % (head.sequence, head.hash.encode()))
"""


def test_a_kill_at_any_moment_never_loses_an_event_that_reserve_returned_for(path):
    plan = plan_of(rounds=100_000, cap=100_000)
    rng = random.Random(7)
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, str(Path(here).parent)])}
    promised: dict[int, str] = {}
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, path, here], stdout=subprocess.PIPE, env=environment
        ) as child:
            first = child.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.15))
            child.send_signal(signal.SIGKILL)
            lines = (first + child.stdout.read()).decode().splitlines(keepends=True)
        assert child.returncode == -signal.SIGKILL
        promised |= {int(s): h for s, h in (line.split() for line in lines if line.endswith("\n"))}
        ledger = Ledger.open(path, plan, key_fingerprint=KEY)
        for sequence, hashed in promised.items():
            ledger.require_at_least(sequence, hashed)
        ledger.verify_events()
        # At most the reservation that was under way is there without its promise.
        assert max(promised) <= ledger.head.sequence <= max(promised) + 1
        ledger.close()
    assert len(promised) >= 3
