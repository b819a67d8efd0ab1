"""Keeps Ctrl-C from being lost while processes are started.

Python runs its at-fork hooks in the main thread, where signals are handled too, and prints and drops what a hook
raises: an interrupt that arrives just then is gone. The forked child may print the same before it becomes another
program.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_REPEAT_SECONDS = 0.1


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end of the block if one arrived and something in it swallowed that.

    One that nothing swallows is raised at once, as ever; one that an at-fork hook or a finaliser dropped is sent again.
    Forked children that have not yet become another program ignore interrupts. Outside the main thread, or where the
    handler is not Python's own, nothing is changed.
    """
    on_main = threading.current_thread() is threading.main_thread()
    if not on_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    process, noted, closing = os.getpid(), False, False
    report = sys.unraisablehook
    repeats: list[threading.Timer] = []

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        if os.getpid() != process:
            return
        noted = True
        if not closing:
            raise KeyboardInterrupt

    def report_others(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)
        elif os.getpid() == process and not closing:
            # What the block waits for may have been interrupted too, and then it would wait in vain.
            repeats.append(threading.Timer(_REPEAT_SECONDS, os.kill, (process, signal.SIGINT)))
            repeats[-1].start()

    sys.unraisablehook = report_others
    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception as error:
        # What fails after an interrupt was swallowed fails because of it: the other processes heard it too.
        if noted:
            raise KeyboardInterrupt from error
        raise
    finally:
        closing = True
        for repeat in repeats:
            repeat.cancel()
            repeat.join()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = report
    if noted:
        raise KeyboardInterrupt
