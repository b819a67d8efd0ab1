import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from fedsafe.errors import ConfigError
from fedsafe.serve.alerts import Alert, Alerts, FileSink
from fedsafe.serve.figures import GuardFigures
from fedsafe.serve.webhook import WebhookSink


class Kept:
    def __init__(self):
        self.alerts = []

    def send(self, alert):
        self.alerts.append(alert)

    def close(self):
        pass


@pytest.fixture
def receiver():
    got, answers = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(answers.pop(0) if answers else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/alerts", got, answers
    server.shutdown()
    thread.join()
    server.server_close()


def alert(kind="ood", severity="info"):
    return Alert(kind=kind, severity=severity, message="strange", seconds=1.0)


def test_alerts_of_a_kind_are_limited_and_what_was_withheld_is_told():
    now, kept, counted = [0.0], Kept(), []
    alerts = Alerts(
        [(kept, "info")], per_minute=6, burst=3, clock=lambda: now[0], counted=lambda a, s: counted.append(s)
    )
    assert [alerts.raise_alert("ood", "info", "x") for _ in range(10)] == [True] * 3 + [False] * 7
    assert alerts.raise_alert("queries", "info", "x")
    assert alerts.raise_alert("ood", "critical", "x")
    now[0] = 10.0  # six a minute: one more
    assert alerts.raise_alert("ood", "info", "x")
    assert not alerts.raise_alert("ood", "info", "x")
    assert kept.alerts[-1].withheld == 7
    now[0] = 1e6  # never more than the burst
    assert sum(alerts.raise_alert("ood", "info", "x") for _ in range(10)) == 3
    assert counted.count(True) == len(kept.alerts)


def test_each_sink_gets_what_is_severe_enough_for_it(tmp_path):
    everything, bad = Kept(), FileSink(tmp_path / "alerts.jsonl")
    alerts = Alerts([(everything, "info"), (bad, "critical")])
    for severity in ("info", "warning", "critical"):
        alerts.raise_alert("drift", severity, "changed", since=3)
    assert len(everything.alerts) == 3
    (line,) = (tmp_path / "alerts.jsonl").read_text().splitlines()
    assert json.loads(line)["severity"] == "critical"
    assert json.loads(line)["detail"] == {"since": 3}
    with pytest.raises(ConfigError, match="severities"):
        Alerts([(everything, "loud")])


def test_a_file_that_cannot_be_written_is_counted(tmp_path):
    sink = FileSink(tmp_path / "no" / "file")
    sink.send(alert())
    assert sink.failures == 1


def test_a_webhook_gets_every_alert_and_a_failure_is_tried_once_more(receiver):
    url, got, answers = receiver
    answers += [500, 200, 500, 503]
    sink = WebhookSink(url)
    for kind in ("one", "two", "three"):
        sink.send(alert(kind))
    sink.close()
    assert [line["kind"] for line in got] == ["one", "one", "two", "two", "three"]
    assert (sink.sent, sink.failures, sink.dropped) == (2, 1, 0)


def test_a_webhook_that_nobody_answers_holds_up_nothing_and_its_queue_is_bounded():
    sink = WebhookSink("http://127.0.0.1:9/none", most=5, timeout=0.2)
    began = time.monotonic()
    for _ in range(1000):
        sink.send(alert())
    assert time.monotonic() - began < 1.0
    assert sink.dropped >= 900
    sink.close()
    assert sink.failures + sink.dropped == 1000
    assert sink.sent == 0
    with pytest.raises(ConfigError, match="no address"):
        WebhookSink("file:///etc/passwd")


def test_counters_tell_sent_from_withheld():
    figures = GuardFigures()
    alerts = Alerts(counted=figures.alerted, burst=2)
    for _ in range(5):
        alerts.raise_alert("drift", "critical", "changed")
    value = figures.registry.get_sample_value
    assert value("fedsafe_guard_alerts_total", {"kind": "drift", "severity": "critical"}) == 2
    assert value("fedsafe_guard_alerts_withheld_total", {"kind": "drift"}) == 3


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/x", "http://127.0.0.1:0/x", "http:///x"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="no address"):
        WebhookSink(url)


def test_whatever_goes_wrong_with_an_alert_the_next_is_sent(receiver):
    url, got, _ = receiver
    sink = WebhookSink(url)
    sink.url = f"http://{'a' * 70}.example/x"  # no name of a host: not an error of HTTP
    sink.send(alert("one"))
    end = time.monotonic() + 10
    while not sink.failures and time.monotonic() < end:
        time.sleep(0.01)
    sink.url = url
    sink.send(alert("two"))
    sink.close()
    assert [line["kind"] for line in got] == ["two"]
    assert (sink.sent, sink.failures) == (1, 1)


def test_what_sinks_lose_is_shown(tmp_path):
    figures, sink = GuardFigures(), FileSink(tmp_path / "none" / "alerts.jsonl")
    alerts = Alerts([(sink, "info")])
    alerts.raise_alert("drift", "critical", "changed")
    figures.lost(alerts.failures)
    assert figures.registry.get_sample_value("fedsafe_guard_alerts_lost", {"sink": "FileSink"}) == 1
