"""Starts ``fedsafe`` commands by forking, from a process that has imported everything once.

Each command is a process of its own, which can be killed and interrupted, without the seconds of imports. It
reads one JSON request a line: ``{"argv", "cwd", "env", "out", "err"}`` answers a process id, ``{"poll": pid}`` an
exit code (negative for a signal) or null.
"""

import json
import os
import signal
import sys
import tempfile
import traceback


def run_child(request: dict) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    sys.argv = ["fedsafe", *request["argv"]]
    code = 0
    try:
        from fedsafe.cli import main

        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def warm() -> None:
    """Import what commands need, calibrate the tiny plan, whose figures are remembered, and write a page."""
    import tiny_federation

    import fedsafe.cli
    import fedsafe.serve.safety_card
    import fedsafe.serve.server
    import fedsafe.serve.table_guard
    import fedsafe.verify  # noqa: F401
    from fedsafe.assess import ASSESSORS, find_assessor
    from fedsafe.privacy.circumstances import Circumstances
    from fedsafe.privacy.matrix import planned_claims
    from fedsafe.report import write_report
    from fedsafe.runs import run
    from fedsafe.runs.compose import calibrate, compose
    from fedsafe.runs.config import make_config
    from fedsafe.runs.judge import Judge

    config = tiny_federation.config()
    parts = compose(make_config(config))
    plan = calibrate(parts)
    planned_claims(plan, Circumstances(key_from_seed=True))
    plan.spending()
    Judge(parts, ())
    for name in ASSESSORS:
        find_assessor(name)
    with tempfile.TemporaryDirectory() as folder:
        # A run starts threads, which no fork may inherit.
        child = os.fork()
        if child == 0:
            run(config, out=f"{folder}/run")
            os._exit(0)
        os.waitpid(child, 0)
        write_report(f"{folder}/run")


def answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    warm()
    answer("ready")
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer(None if pid == 0 else os.waitstatus_to_exitcode(status))
        else:
            child = os.fork()
            if child == 0:
                sys.stdin = open(os.devnull)  # noqa: SIM115 - the child leaves by _exit
                run_child(request)
            answer(child)


if __name__ == "__main__":
    main()
