"""``fedsafe serve``: the printed address answers, a signal ends it cleanly, and what may not be served is one line."""

import http.client
import json
import re
import signal
import socket
import threading
import time

import pytest
from tiny_federation import config, task

from fedsafe.records import Round
from fedsafe.runs import run
from fedsafe.serve import read_log, verify_log
from fedsafe.serve.decision_log import audit_key
from fedsafe.store import RunFolder

ROW = {"a0": 1.5, "a1": 0.5, "a2": -2, "sex": "Female"}


def larger_task():
    return task(evaluation=900)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    changed = config(task=f"{__name__}:larger_task")
    return run(changed, out=tmp_path_factory.mktemp("runs") / "tiny").path


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    rule = {"metric": "performance.accuracy", "op": ">=", "threshold": 0.999}
    changed = config(task=f"{__name__}:larger_task", assess__require=[rule])
    return run(changed, out=tmp_path_factory.mktemp("runs") / "failed").path


def address(command, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := re.search(r"http://127.0.0.1:(\d+)/v1/predict", command.out)):
        assert command.running(), command.err
        assert time.monotonic() < end, command.out
        time.sleep(0.02)
    return int(found[1])


def send(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    content = None if body is None else json.dumps(body)
    given = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    try:
        connection.request(method, path, content, given)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    return answer.status, json.loads(text) if text.startswith("{") else text


def ends_and_lost_nothing(command, number, port, log, **headers):
    """A signal while many ask: the service ends by itself, and every decision that was given out is in the log."""
    told, stop = [], threading.Event()

    def keep_asking():
        while not stop.is_set():
            try:
                status, answer = send(port, "POST", "/v1/predict", {"instances": [ROW]}, **headers)
            except (OSError, http.client.HTTPException):
                return
            if status == 200:
                told.append(answer["decisions"][0]["id"])

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    command.signal(number)
    assert command.wait(20.0) == 0, command.err
    stop.set()
    for thread in threads:
        thread.join()
    assert "all in the log" in command.out
    verify_log(log, audit_key(log.with_name("decisions.key")))
    logged = {line["id"] for line in read_log(log) if line["kind"] == "decision"}
    assert set(told) <= logged
    assert len(told) > 3


def test_it_answers_until_a_signal_and_no_decision_is_lost(start, finished, tmp_path):
    log = tmp_path / "decisions.jsonl"
    command = start(
        "serve", finished, "--port", "0", "--log", log, "--note-strange", "--note-flips", "--sync", "never"
    )
    port = address(command)
    status, answer = send(port, "POST", "/v1/predict", {"instances": [ROW] * 3})
    assert (status, len(answer["decisions"])) == (200, 3)
    status, card = send(port, "GET", "/v1/card")
    assert status == 200
    rounds = [line for line in RunFolder.open(finished).record() if isinstance(line, Round)]
    assert card["model"]["sha256"] == rounds[card["model"]["round"] - 1].parameters_sha256
    assert {"monitor.false_alarm_rate", "monitor.detection_rate"} <= {
        f["metric"] for f in card["monitor"]["measured"]
    }
    assert card["claims"]
    assert card["served_though_failed"] == []
    ends_and_lost_nothing(command, signal.SIGTERM, port, log)
    assert command.err == ""


def test_a_model_that_fails_a_must_is_refused(fedsafe, failed):
    command = fedsafe("serve", failed, "--port", "0")
    assert command.code == 1
    assert "performance.accuracy >= 0.999" in command.err
    assert "--allow-failed" in command.err
    assert len(command.err.strip().splitlines()) == 1


def test_it_is_served_on_request_to_those_with_a_key_of_which_hashes_are_kept(
    start, fedsafe, failed, tmp_path
):
    made = fedsafe("serve", "--keys", "keys", "--new-key", "ward-3")
    assert made.code == 0, made.err
    key = made.out.strip()
    assert key not in (tmp_path / "keys").read_text()
    log = tmp_path / "decisions.jsonl"
    command = start("serve", failed, "--port", "0", "--allow-failed", "--keys", "keys", "--log", log)
    port, bearer = address(command), f"Bearer {key}"
    assert send(port, "POST", "/v1/predict", {"instances": [ROW]})[0] == 401
    assert send(port, "POST", "/v1/predict", {"instances": [ROW]}, authorization="Bearer no")[0] == 401
    assert send(port, "POST", "/v1/predict", {"instances": [ROW]}, authorization=bearer)[0] == 200
    assert send(port, "GET", "/v1/health")[0] == 200
    assert send(port, "GET", "/v1/card")[0] == 401
    _, card = send(port, "GET", "/v1/card", authorization=bearer)
    assert "performance.accuracy" in card["served_though_failed"][0]
    ends_and_lost_nothing(command, signal.SIGINT, port, log, authorization=bearer)
    assert command.err.startswith("fedsafe: served though it fails: performance.accuracy")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name the run folder"),
        (("nowhere",), "nowhere"),
        (("RUN", "--host", "0.0.0.0", "--port", "0"), "without --keys anybody there could ask"),
        (("RUN", "--port", "99999"), "give a number from 0"),
        (("RUN", "--keys", "none"), "--keys none cannot be read"),
        (("--new-key", "a"), "name it with --keys FILE"),
        (("RUN", "--operator"), "--new-key NAME --operator"),
        (("RUN", "--port", "0", "--webhook", "ftp://x"), "no address"),
        (("RUN", "--batch", "0"), "the limit batch = 0"),
        (("RUN", "--certificate", "a.pem"), "give both, or none"),
        (("RUN", "--certificate", "a.pem", "--private-key", "b.pem", "--port", "0"), "a.pem"),
        (("RUN", "--sync", "sometimes"), "use batch, second, never"),
        (("RUN", "--level", "2"), "false-alarm rate"),
        (("RUN", "--round", "99"), "no round 99"),
    ],
)
def test_what_cannot_be_served_is_one_clear_line(fedsafe, finished, words, said):
    command = fedsafe("serve", *[finished if word == "RUN" else word for word in words])
    assert command.code == 1, command.err
    assert said in command.err
    assert len(command.err.strip().splitlines()) == 1, command.err


def test_a_port_that_is_taken_is_said(fedsafe, finished):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = fedsafe("serve", finished, "--port", taken.getsockname()[1])
    assert command.code == 1
    assert "cannot listen" in command.err
