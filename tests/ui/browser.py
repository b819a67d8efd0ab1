"""Headless Chromium, driven by the DevTools protocol over two pipes: no package, no port."""

import base64
import json
import os
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--remote-debugging-pipe",
)


class Browser:
    """One browser with one page.

    Args:
        profile: A folder for its profile.
    """

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        words = shlex.join([CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"])
        # The protocol is spoken over the descriptors 3 and 4, whatever stands there here.
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {words} 3<&{theirs_in} 4>&{theirs_out}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """What a method of the protocol returns."""
        self._number += 1
        request: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._out, json.dumps(request).encode() + b"\0")
        while True:
            message = self._next(30.0)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def _next(self, seconds: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], seconds)[0]:
                raise TimeoutError(f"the browser says nothing for {seconds} s")
            piece = os.read(self._in, 1 << 16)
            if not piece:
                raise RuntimeError("the browser is gone")
            self._buffer += piece
        raw, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(raw)

    def open(self, url: str) -> None:
        """Go to an address, and wait until the page is loaded."""
        # By way of an empty page: what the one before still asks for, and is refused, is no complaint of the next.
        for address in ("about:blank", url):
            self.events.clear()
            self.ask("Page.navigate", url=address)
            self.until("Page.loadEventFired")

    def until(self, method: str, seconds: float = 20.0) -> None:
        """Wait for an event."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next(seconds))

    def script(self, text: str) -> Any:
        """The value of an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 15.0) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.script(condition):
            assert time.monotonic() < end, f"not within {seconds} s: {condition}"
            time.sleep(0.05)

    def key(self, name: str) -> None:
        """Press and let go."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        text = {"Enter": "\r", " ": " "}.get(name, "")
        about = {"key": name, "windowsVirtualKeyCode": codes[name], "text": text}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **about)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    def width(self, pixels: int, height: int = 900) -> None:
        """The width of the window; a phone's where it is narrow."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=pixels,
            height=height,
            deviceScaleFactor=1,
            mobile=pixels < 600,
        )

    def scripts(self, *, on: bool) -> None:
        """Whether pages may run scripts."""
        self.ask("Emulation.setScriptExecutionDisabled", value=not on)

    @property
    def complaints(self) -> list[str]:
        """What the browser logged since the page was opened: refused by its policy, not found, thrown."""
        said = [
            event["params"]["entry"]["text"]
            for event in self.events
            if event.get("method") == "Log.entryAdded"
        ]
        thrown = [
            event["params"]["exceptionDetails"]["text"]
            for event in self.events
            if event.get("method") == "Runtime.exceptionThrown"
        ]
        return said + thrown

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A picture of the page."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        """End it."""
        self._session = None
        try:
            self.ask("Browser.close")
        except (RuntimeError, TimeoutError, OSError):
            self._process.kill()
        self._process.wait(20)
        os.close(self._in)
        os.close(self._out)
