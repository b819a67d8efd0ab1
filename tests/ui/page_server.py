"""The page, served from a thread; and requests that are sent as they are written."""

import http.client
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from fedsafe.ui import create_app


@dataclass(frozen=True)
class Answer:
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Served:
    """A page over a folder, until it is closed."""

    def __init__(self, folder: Path, **options: Any) -> None:
        app = create_app(folder, **options)
        config = uvicorn.Config(
            app, port=0, log_level="critical", lifespan="off", ws="none", proxy_headers=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.005)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """The answer to a path that nothing tidies up before it is sent."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            host = headers.pop("host", f"127.0.0.1:{self.port}")
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", host)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
