"""Alerts to a webhook, by a thread of its own with a bounded queue: a slow receiver never holds up a decision."""

import contextlib
import logging
import queue
import threading
from typing import Final
from urllib.parse import urlsplit

import httpx

from fedsafe.errors import ConfigError
from fedsafe.serve.alerts import Alert

_LOG = logging.getLogger(__name__)
_TIMEOUT: Final = 5.0
_CLOSING: Final = 3.0


class WebhookSink:
    """Posts each alert as JSON.

    An alert that the receiver does not take (no connection, no answer in time, a status of 400 or more) is tried once
    more and then counted as failed; one that the full queue does not take is counted as dropped.

    Args:
        url: ``http://`` or ``https://``.
        most: Alerts that wait, at most.
        timeout: Seconds for an answer.

    Raises:
        ConfigError: The URL is none.
    """

    def __init__(self, url: str, *, most: int = 100, timeout: float = _TIMEOUT) -> None:
        self.url, self.sent, self.failures, self.dropped = checked(url), 0, 0, 0
        self._queue: queue.Queue[Alert | None] = queue.Queue(most)
        self._timeout, self._stop = timeout, threading.Event()
        self._thread = threading.Thread(target=self._work, name="fedsafe alerts", daemon=True)
        self._thread.start()

    def send(self, alert: Alert) -> None:
        """Queue it; dropped, and counted, where the queue is full."""
        try:
            self._queue.put_nowait(alert)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        self._stop.set()
        with contextlib.suppress(queue.Full):  # a full queue keeps the thread awake by itself
            self._queue.put_nowait(None)
        self._thread.join(_CLOSING)

    def _work(self) -> None:
        # Alerts must reach whom they are for whatever proxies the environment names.
        with httpx.Client(timeout=self._timeout, trust_env=False) as client:
            while True:
                if self._stop.is_set() and self._queue.empty():
                    return
                alert = self._queue.get()
                if alert is not None:
                    self._post(client, alert)

    def _post(self, client: httpx.Client, alert: Alert) -> None:
        for _ in range(2):
            try:
                if client.post(self.url, json=alert.to_json()).status_code < 400:
                    self.sent += 1
                    return
            except (
                Exception
            ):  # an address may be wrong in ways that are found here alone, and the thread goes on
                _LOG.debug("an alert was not taken", exc_info=True)
        self.failures += 1


def checked(url: str) -> str:
    """The address of a webhook.

    Raises:
        ConfigError: It is none.
    """
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:  # its port is none
        wrong = True
    if wrong:
        raise ConfigError(f"the webhook {url!r} is no address: give http://HOST/... or https://HOST/...")
    return url
