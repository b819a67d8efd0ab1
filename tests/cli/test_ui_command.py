"""``fedsafe ui``: the printed address answers, Ctrl-C ends it, and a wrong request is one line."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import time

import pytest


def address(command, seconds=30.0):
    end = time.monotonic() + seconds
    while not (found := re.search(r"http://(\S+):(\d+)(/\S*)", command.out)):
        assert command.running(), command.err
        assert time.monotonic() < end
        time.sleep(0.01)
    return found[1], int(found[2]), found[3]


def get(host, port, path):
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def test_a_free_port_is_printed_and_an_interrupt_ends_it_quietly(start, tmp_path):
    command = start("ui", "--port", "0")
    host, port, path = address(command)
    assert (host, path) == ("127.0.0.1", "/")
    assert port
    answer, body = get(host, port, path)
    assert answer.status == 200
    assert "No run is here yet" in body
    command.signal(signal.SIGINT)
    assert command.wait(10.0) == 130
    assert command.err == ""
    assert command.out.count("\n") == 1


def test_what_is_private_has_a_key(start, tmp_path):
    command = start("ui", tmp_path, "--port", "0", "--private")
    host, port, path = address(command)
    assert re.fullmatch(r"/\?key=[\w-]{32}", path)
    answer, _ = get(host, port, path)
    assert answer.status == 303
    command.signal(signal.SIGTERM)
    command.wait(10.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "nowhere is not a folder"),
        (("--port", "99999"), "--port 99999: give a number from 0"),
        (("--host", "no such host"), "--host 'no such host' is no address of this machine"),
        (("--host", "0.0.0.0", "--port", "0", "--private"), "would leave this machine"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(fedsafe, words, said):
    command = fedsafe("ui", *words)
    assert command.code == 1
    assert command.out == ""
    assert command.err.startswith("fedsafe: ")
    assert command.err.count("\n") == 1
    assert said in command.err


def test_a_port_in_use_is_said(fedsafe):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = fedsafe("ui", "--port", taken.getsockname()[1])
    assert command.code == 1
    assert "--port 0 takes a free one" in command.err


def test_the_command_needs_neither_torch_nor_a_drawing_to_start():
    heavy = ("torch", "flwr", "ray", "matplotlib", "pandas")
    code = f"import sys, fedsafe.ui; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
