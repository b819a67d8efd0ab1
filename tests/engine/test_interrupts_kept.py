"""An interrupt that arrives while a process forks is kept, and only then."""

import signal
import subprocess
import sys
import threading

import pytest

from fedsafe.engine.interrupts import interrupts_kept

# Interrupts itself inside an at-fork hook, where Python drops what is raised.
SWALLOWED = """
import os, signal, subprocess, sys
from contextlib import nullcontext
from fedsafe.engine.interrupts import interrupts_kept
os.register_at_fork({where}=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    with {context}():
        # A preexec_fn makes Python fork, as Ray does.
        subprocess.run([sys.executable, "-c", ""], preexec_fn=lambda: None, check=True)
        print("went on")
    print("finished")
except KeyboardInterrupt:
    print("interrupted")
"""


def outcome(script: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    return done.stdout, done.stderr


def test_one_that_a_hook_swallows_is_raised_at_the_end_and_nothing_is_printed():
    out, err = outcome(SWALLOWED.format(where="after_in_parent", context="interrupts_kept"))
    # On a busy machine it is sent again before the block is through.
    assert out in ("went on\ninterrupted\n", "interrupted\n")
    assert not err


def test_one_that_a_hook_swallows_ends_what_the_block_waits_for():
    waits = SWALLOWED.replace(
        '        print("went on")', '        import time; time.sleep(30); print("went on")'
    )
    assert outcome(waits.format(where="after_in_parent", context="interrupts_kept")) == ("interrupted\n", "")


def test_without_the_guard_it_is_lost():
    out, err = outcome(SWALLOWED.format(where="after_in_parent", context="nullcontext"))
    assert out == "went on\nfinished\n"
    assert "Exception ignored" in err


def test_a_forked_child_ignores_it_in_silence():
    assert outcome(SWALLOWED.format(where="after_in_child", context="interrupts_kept")) == (
        "went on\nfinished\n",
        "",
    )
    assert "Exception ignored" in outcome(SWALLOWED.format(where="after_in_child", context="nullcontext"))[1]


def test_one_that_nothing_swallows_is_raised_at_once():
    reached = []

    def interrupt():
        signal.raise_signal(signal.SIGINT)
        reached.append("went on")

    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        interrupt()
    assert reached == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_fails_because_of_a_swallowed_one_is_the_interrupt():
    def swallow_and_fail():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("a process is gone") from None

    with pytest.raises(KeyboardInterrupt) as caught, interrupts_kept():
        swallow_and_fail()
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ValueError, match="no interrupt"), interrupts_kept():
        raise ValueError("no interrupt")


def test_another_handler_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    hook = sys.unraisablehook
    try:
        with interrupts_kept():
            assert sys.unraisablehook is hook
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_another_thread_is_left_alone():
    seen = []

    def enter():
        with interrupts_kept():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_other_unraisable_exceptions_are_still_reported(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)

    class Broken:
        def __del__(self):
            raise RuntimeError("in a finaliser")

    with interrupts_kept():
        Broken()
    assert [type(args.exc_value) for args in reported] == [RuntimeError]
