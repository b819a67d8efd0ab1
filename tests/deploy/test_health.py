"""What a container asks to know whether a process lives."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 503)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def port():
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_process_that_answers_is_healthy(fedsafe, port):
    done = fedsafe("deploy", "health", f"http://127.0.0.1:{port}/health")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/other", "http://127.0.0.1:1/health"])
def test_one_that_does_not_is_not(fedsafe, port, url):
    done = fedsafe("deploy", "health", url.format(port=port))
    assert done.code == 1
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:80/", "file:///etc/passwd", "http://127.0.0.1.example.org/"]
)
def test_nothing_but_this_machine_is_asked(fedsafe, url):
    done = fedsafe("deploy", "health", url)
    assert (done.code, "is not on this machine" in done.err) == (1, True)
