"""A client's ledger never shows less than was sent, whoever dies when, and whatever the clock says."""

import json
import os
import shutil
import signal
import sqlite3

import pytest
from hospitals import Hospital, composed, experiment, fold, refused

from fedsafe.deploy.agreement import Agreement
from fedsafe.deploy.client_ledger import AUDIT, LEDGER, ClientLedger
from fedsafe.deploy.gate import Gate
from fedsafe.deploy.policy import RecordBudget
from fedsafe.deploy.refusals import Refusal, Refused
from fedsafe.deploy.replies import Replies
from fedsafe.errors import LedgerError

DAY = 86400.0
BUDGET = RecordBudget(epsilon=1.0, delta=1e-4, period_days=30.0)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    made = Hospital(folder)
    yield composed(experiment(folder))[1]
    made.gate.close()


class Clock:
    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock):
    opened = ClientLedger.open(tmp_path, "north", clock=clock)
    yield opened
    opened.close()


def agreed(plan, run="a" * 32, **changes):
    values = {
        "run": run,
        "plan": plan,
        "experiment": "e",
        "epsilon": 0.4,
        "key": "k",
        "data": "d",
        "versions": {"torch": "1"},
    }
    return Agreement(**{**values, **changes})


def release(ledger, round=1, *, run="a" * 32, digest=b"x", most=3, apart=1, budget=BUDGET, kind="train"):
    return ledger.release(run, kind, round, digest, most=most, apart=apart, budget=budget)


def reason(error):
    return error.value.reason


def test_what_was_written_is_there_after_a_restart(tmp_path, ledger, plan):
    ledger.agree(agreed(plan))
    assert release(ledger) is None
    ledger.replied("a" * 32, "train", 1, "s")
    ledger.refuse(Refusal.OUTSIDE_PLAN, "why")
    head, spent = ledger.head, ledger.spent(BUDGET)
    again = ClientLedger.open(tmp_path, "north")
    assert again.head == head
    assert again.agreement("a" * 32) == agreed(plan)
    assert again.released("a" * 32) == (1,)
    assert again.spent(BUDGET, but=None).ever == spent.ever == 0.4
    assert release(again) == "s"
    again.close()


def test_agreeing_spends_nothing_and_the_first_release_spends_the_whole_plan(ledger, plan):
    ledger.agree(agreed(plan))
    assert ledger.spent(BUDGET).epsilon == 0.0
    release(ledger, 1)
    release(ledger, 2)
    spent = ledger.spent(BUDGET)
    assert (spent.epsilon, spent.delta, spent.runs) == (0.4, plan.record.delta, ("a" * 32,))


def test_runs_add_up_until_one_does_not_fit(ledger, plan):
    for run in ("a" * 32, "b" * 32, "c" * 32):
        ledger.agree(agreed(plan, run))
    release(ledger, run="a" * 32)
    release(ledger, run="b" * 32)
    with pytest.raises(Refused, match=r"0\.8 at delta") as error:
        release(ledger, run="c" * 32)
    assert reason(error) == Refusal.BUDGET_SPENT
    assert ledger.released("c" * 32) == ()
    release(ledger, 2, run="a" * 32)  # what was begun is paid for


def test_deltas_add_up_too(ledger, plan):
    budget = RecordBudget(epsilon=100.0, delta=plan.record.delta * 2.5)
    for run in ("a" * 32, "b" * 32, "c" * 32):
        ledger.agree(agreed(plan, run))
    release(ledger, run="a" * 32, budget=budget)
    release(ledger, run="b" * 32, budget=budget)
    with pytest.raises(Refused):
        release(ledger, run="c" * 32, budget=budget)


def test_a_run_counts_until_a_period_after_its_last_release(ledger, plan, clock):
    for run in ("a" * 32, "b" * 32, "c" * 32):
        ledger.agree(agreed(plan, run, epsilon=0.6))
    release(ledger, 1, run="a" * 32)
    clock.now += 20 * DAY
    release(ledger, 2, run="a" * 32)
    clock.now += 20 * DAY  # 40 days after its first release, 20 after its last
    with pytest.raises(Refused):
        release(ledger, run="b" * 32)
    clock.now += 11 * DAY
    release(ledger, run="b" * 32)
    with pytest.raises(Refused, match=r"0\.6 at delta") as error:
        release(ledger, 3, run="a" * 32)  # it comes back into a period that another run has filled
    assert reason(error) == Refusal.BUDGET_SPENT
    assert ledger.spent(BUDGET).ever == pytest.approx(1.2)


def test_sending_a_reply_later_counts_as_late(ledger, plan, clock):
    ledger.agree(agreed(plan))
    release(ledger)
    clock.now += 29 * DAY
    ledger.replied("a" * 32, "train", 1, "s")
    clock.now += 29 * DAY
    assert ledger.spent(BUDGET).epsilon == 0.4


@pytest.mark.parametrize("answered", [True, False])
def test_a_release_of_an_earlier_period_is_sent_again_only_if_this_one_pays_for_it(
    ledger, plan, clock, tmp_path, answered
):
    """Its reply may never have arrived, and then it is news now."""
    for run in ("a" * 32, "b" * 32):
        ledger.agree(agreed(plan, run, epsilon=0.6))
    release(ledger, run="a" * 32)
    if answered:
        ledger.replied("a" * 32, "train", 1, "s")
    clock.now += 40 * DAY
    release(ledger, run="b" * 32)
    with pytest.raises(Refused) as error:
        release(ledger, run="a" * 32)
    assert reason(error) == Refusal.BUDGET_SPENT
    clock.now += 40 * DAY
    assert release(ledger, run="a" * 32) == ("s" if answered else None)
    assert ledger.spent(BUDGET).runs == ("a" * 32,)
    again = ClientLedger.open(tmp_path, "north", clock=clock)
    assert again.spent(BUDGET).runs == ("a" * 32,)
    assert release(again, run="a" * 32) == ("s" if answered else None)
    again.close()


def test_setting_the_clock_back_or_forth_and_back_forgets_nothing(ledger, plan, clock, tmp_path):
    ledger.agree(agreed(plan, epsilon=0.9))
    release(ledger)
    ledger.agree(agreed(plan, "b" * 32))
    clock.now -= 1000 * DAY
    assert ledger.spent(BUDGET).epsilon == 0.9
    with pytest.raises(Refused):
        release(ledger, run="b" * 32)
    reopened = ClientLedger.open(tmp_path, "north", clock=clock)
    with pytest.raises(Refused):
        release(reopened, run="b" * 32)
    times = [event.body["time"] for event in reopened.events[1:]]
    assert times == sorted(times)
    reopened.close()


def test_the_same_release_again_is_free_and_another_is_refused(ledger, plan):
    ledger.agree(agreed(plan))
    release(ledger)
    events = len(ledger.events)
    assert release(ledger) is None
    assert len(ledger.events) == events
    with pytest.raises(Refused) as error:
        release(ledger, digest=b"y")
    assert reason(error) == Refusal.ROUND_ALREADY_RELEASED


def test_kinds_and_runs_do_not_share_rounds(ledger, plan):
    for run in ("a" * 32, "b" * 32):
        ledger.agree(agreed(plan, run, epsilon=0.1))
        release(ledger, run=run)
        release(ledger, run=run, digest=b"y", kind="evaluate")
    assert ledger.released("a" * 32) == ledger.released("b" * 32, "evaluate") == (1,)


@pytest.mark.parametrize(
    ("round", "options"), [(3, {"most": 2}), (2, {"most": 0}), (3, {"apart": 2, "most": 5})]
)
def test_more_than_the_plan_has(ledger, plan, round, options):
    ledger.agree(agreed(plan))
    release(ledger, 1)
    release(ledger, 2, apart=1)
    with pytest.raises(Refused) as error:
        release(ledger, round, digest=b"z", **options) if round != 2 else release(ledger, 5, **options)
    assert reason(error) == Refusal.OUTSIDE_PLAN


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"experiment": "other"}, Refusal.EXPERIMENT_NOT_ALLOWED),
        ({"data": "other"}, Refusal.DATA_NOT_AS_AGREED),
        ({"key": "other"}, Refusal.DATA_NOT_AS_AGREED),
    ],
)
def test_what_was_agreed_to_cannot_change(ledger, plan, changes, expected):
    ledger.agree(agreed(plan))
    ledger.agree(agreed(plan))
    with pytest.raises(Refused) as error:
        ledger.agree(agreed(plan, **changes))
    assert reason(error) == expected


def test_a_ledger_belongs_to_one_client(tmp_path, ledger):
    with pytest.raises(LedgerError, match="is the ledger of 'north', not of 'south'"):
        ClientLedger.open(tmp_path, "south")


EDITS = {
    "a smaller epsilon": "UPDATE event SET body = replace(body, '0.4', '0.1')",
    "a release that never was": "DELETE FROM event WHERE kind = 'release'",
    "its row": "DELETE FROM release",
    "another digest": "UPDATE release SET digest = '00'",
    "the end": "DELETE FROM event WHERE sequence = (SELECT max(sequence) FROM event)",
    "everything": "DELETE FROM event",
}


@pytest.mark.parametrize("edit", sorted(EDITS))
def test_an_edited_ledger_is_detected(tmp_path, ledger, plan, edit):
    ledger.agree(agreed(plan))
    release(ledger)
    ledger.close()
    with sqlite3.connect(tmp_path / LEDGER) as database:
        database.execute(EDITS[edit])
    database.close()
    with pytest.raises(LedgerError):
        ClientLedger.open(tmp_path, "north")


def test_an_older_copy_or_none_is_detected(tmp_path, ledger, plan):
    ledger.agree(agreed(plan))
    shutil.copy(tmp_path / LEDGER, tmp_path / "old")
    release(ledger)
    ledger.close()
    (tmp_path / LEDGER).rename(tmp_path / "new")
    with pytest.raises(LedgerError, match=r"is missing, and audit\.jsonl says that something happened"):
        ClientLedger.open(tmp_path, "north")
    shutil.copy(tmp_path / "old", tmp_path / LEDGER)
    with pytest.raises(LedgerError, match=r"is older than audit\.jsonl"):
        ClientLedger.open(tmp_path, "north")
    shutil.copy(tmp_path / "new", tmp_path / LEDGER)
    ClientLedger.open(tmp_path, "north").close()


def test_only_the_owner_can_read_it(tmp_path, ledger):
    assert os.stat(tmp_path / LEDGER).st_mode & 0o777 == 0o600


def test_the_audit_file_has_neither_keys_nor_plans(tmp_path, ledger, plan):
    ledger.agree(agreed(plan))
    (line,) = (json.loads(line) for line in (tmp_path / AUDIT).read_text().splitlines())
    assert not {"plan", "key", "data"} & set(line)
    assert line["epsilon"] == 0.4


# Every step between a request and its reply, by the function that the process dies before or after.
MOMENTS = [
    (owner, name, when)
    for owner, name in (
        (ClientLedger, "agree"),
        (ClientLedger, "release"),
        (Gate, "_made"),
        (Replies, "store"),
        (ClientLedger, "replied"),
        (Gate, "_measure"),
        (Gate, "_show"),
    )
    for when in ("before", "after")
]


@pytest.mark.parametrize(("owner", "name", "when"), MOMENTS, ids=[f"{w} {n}" for _, n, w in MOMENTS])
def test_a_gate_that_is_killed_anywhere_releases_one_thing(tmp_path, owner, name, when):
    """What was sent before the kill, if anything, is what is sent after it; and it is counted, once."""
    folder = tmp_path / "north"
    first = Hospital(folder)
    first.join()  # plans are cached here, so that the process that dies need not calibrate
    first.gate.close()
    shutil.rmtree(folder / "state")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            hospital = Hospital(folder)
            whole = getattr(owner, name)

            def dying(self, *args, **options):
                if when == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                made = whole(self, *args, **options)
                os.kill(os.getpid(), signal.SIGKILL)
                return made

            setattr(owner, name, dying)
            os.write(writing, fold(hospital.ask(1)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        sent = file.read()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert sent == b"", "it died before it could answer"
    after = Hospital(folder)
    shown = set(after.kinds())
    stored = after.ask(1)
    assert fold(stored)
    kinds = after.kinds()
    assert kinds.count("release") == kinds.count("reply") == kinds.count("agreement") == 1
    assert shown <= set(kinds)
    assert refused(after.ask(1, shift=0.1)) == "round_already_released"
    assert after.restart().ask(1).content.object_id == stored.content.object_id
    after.gate.close()


def test_a_release_that_was_charged_and_not_answered_is_made_again_under_the_same_noise(
    tmp_path, monkeypatch
):
    hospital = Hospital(tmp_path / "north")
    with monkeypatch.context() as broken:
        broken.setattr(Replies, "store", lambda *args: (_ for _ in ()).throw(OSError("disk full")))
        assert refused(hospital.ask(1)) == "failed"
    made = []
    whole = Gate._made
    monkeypatch.setattr(Gate, "_made", lambda *args: made.append(whole(*args)) or made[-1])
    first = hospital.ask(1)
    again = whole(hospital.gate, *_arguments(hospital))
    assert fold(first) == b"".join(
        name.encode() + again.array_records["fold"][name].data for name in sorted(again.array_records["fold"])
    )
    assert hospital.kinds().count("release") == 1
    hospital.gate.close()


def _arguments(hospital):
    from flwr.app import Message, RecordDict

    from fedsafe.deploy.requests import Request
    from fedsafe.federation.messages import instruction_content, pack_parameters

    parts, plan = composed(hospital.text)
    content = instruction_content(pack_parameters(parts.initial, parts.layout), round=1, plan=plan.hash)
    message = Message(RecordDict(dict(content)), dst_node_id=2, message_type="train", group_id="1")
    ready = next(iter(hospital.gate._ready.values()))
    return message, Request(kind="train", run=hospital.run, experiment=hospital.text), ready
