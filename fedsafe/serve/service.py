"""The service of a guarded model, as an ASGI application.

Requests for decisions are answered before FastAPI is asked: what it does for each takes as long as the model. It has
the other routes, and the OpenAPI document of all.
"""

import hmac
import json
import logging
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from fedsafe.serve.asking import JSON, Asking, Refused
from fedsafe.serve.described import operation, refusals
from fedsafe.serve.keys import Keys
from fedsafe.serve.limits import Limits
from fedsafe.serve.pipeline import Guard
from fedsafe.serve.service_figures import ServiceFigures

PREDICT, EXPLAIN = "/v1/predict", "/v1/explain"
_FAST = {PREDICT: False, EXPLAIN: True}
METRICS = "/metrics"
_OPEN = ("/v1/health", "/v1/ready")
_LOCAL = ("localhost", "127.0.0.1", "::1")
_FAILED = b'{"error": {"code": "failed", "message": "this could not be answered; the operator knows why"}}'
_CLOSE = (b"connection", b"close")
_SMALL = 1 << 16
"""A body that is said to be no longer is let in though nobody reads it, and the connection goes on."""
_ALWAYS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_LOG = logging.getLogger(__name__)


class Service:
    """See the module.

    Args:
        guard: That decides; the service closes it when it ends.
        keys: Who may ask; None for whoever reaches it, who must call it by a name of this machine then: a page on the
            web may point a name of its own at this machine (DNS rebinding).
        limits: Of requests.
        card: The safety card, see `fedsafe.serve.safety_card`.
        hosts: More names that it may be called by without keys.
        linger: See `fedsafe.serve.batching.Batcher`.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        keys: Keys | None = None,
        limits: Limits | None = None,
        card: Mapping[str, Any] | None = None,
        hosts: Iterable[str] = (),
        linger: float = 0.002,
    ) -> None:
        self.guard, self._keys, self._limits = guard, keys, limits or Limits()
        self._card = dict(card or {})
        self._hosts = {*_LOCAL, socket.gethostname().lower(), *(host.lower() for host in hosts)}
        self._asking = Asking(guard, self._limits, linger=linger)
        self.figures = ServiceFigures()
        self.stopping = False
        self._app: ASGIApp = self._with_routes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def close(self) -> None:
        """Answer what is asked, and write the log."""
        self.stopping = True
        await self._asking.batcher.close()
        self.guard.close()

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, path = time.perf_counter(), scope["path"]
        headers: tuple[tuple[bytes, bytes], ...] = ()
        fast = path in _FAST and scope["method"] == "POST"
        try:
            caller = self._caller(scope)
            if not fast:
                await self._app(scope, receive, _watched(send, self, scope, began))
                return
            body = await self._asking.answer(scope, receive, caller, explain=_FAST[path])
            status = 200
        except Refused as refused:
            status, body, headers = refused.status, refused.body, refused.headers
            if not refused.read and _CLOSE not in headers and _leaves_a_body(scope):
                headers = (*headers, _CLOSE)
        except Exception:
            # Whatever it is, the caller is not told: a text may hold what is private.
            _LOG.exception("a request for %s failed", path)
            status, body = 500, _FAILED
        length = (b"content-length", str(len(body)).encode())
        await send(
            {"type": "http.response.start", "status": status, "headers": [JSON, length, *_ALWAYS, *headers]}
        )
        await send({"type": "http.response.body", "body": body})
        self.figures.answered(path if path in _FAST else "other", status, time.perf_counter() - began)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _caller(self, scope: Scope) -> str:
        """Who asks: the name of a key, or "" where there are none.

        Raises:
            Refused: Nobody who may.
        """
        if scope["path"] in _OPEN:
            return ""
        if self._keys is None:
            if not self._called_by_name(scope):
                raise Refused(403, "host", "the Host of this request is no name of this machine")
            return ""
        key = ""
        for name, value in scope["headers"]:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                key = value[7:].strip().decode("latin-1")
            elif name == b"x-api-key" and not key:
                key = value.strip().decode("latin-1")
        caller = self._keys.who(key) if key else None
        if caller is None:
            raise Refused(
                401,
                "key",
                "give a key of this service: Authorization: Bearer KEY",
                headers=((b"www-authenticate", b"Bearer"),),
            )
        if scope["path"] == METRICS and caller not in self._keys.operators:
            raise Refused(
                403, "operator", "the figures tell of other callers too: ask with the key of an operator"
            )
        return caller

    def _called_by_name(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1:
            return False
        text = given[0].decode("latin-1").lower()
        name = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
        here = (scope.get("server") or ("",))[0] or ""
        return name in self._hosts or hmac.compare_digest(name.encode(), str(here).encode())

    def _with_routes(self) -> FastAPI:
        app = FastAPI(
            title="FedSafe",
            summary="A released model that guards itself.",
            version="1",
            docs_url=None,
            redoc_url=None,
            swagger_ui_oauth2_redirect_url=None,
        )
        described, limits = self._asking.instances.described, self._limits
        predict, explain = (operation(described, most) for most in (limits.batch, limits.explained))

        async def other(request: Request) -> Response:  # pragma: no cover - answered before it gets here
            raise NotImplementedError

        app.post(PREDICT, summary="Decide instances", openapi_extra=predict, responses=None)(other)
        app.post(EXPLAIN, summary="Decide instances, and explain the answers", openapi_extra=explain)(other)

        @app.get("/v1/health", summary="Whether the process answers")
        def health() -> dict[str, bool]:
            return {"alive": True}

        @app.get("/v1/ready", summary="Whether decisions can be asked for", responses=_ready_responses())
        def ready() -> Response:
            # How much is asked is no stranger's business.
            return Response(
                json.dumps({"ready": not self.stopping}),
                503 if self.stopping else 200,
                media_type="application/json",
            )

        @app.get("/v1/card", summary="The safety card", responses=refusals(401, 403))
        def card() -> Response:
            return Response(json.dumps(self._card, allow_nan=False), media_type="application/json")

        @app.get(METRICS, summary="Figures for Prometheus", responses=refusals(401, 403))
        def metrics() -> Response:
            self.figures.waiting.set(self._asking.batcher.rows)
            self.guard.figures.lost(self.guard.alerts.failures)
            text = self.figures.text(self.guard.figures.registry)
            return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

        @app.exception_handler(HTTPException)
        def refused(request: Request, error: HTTPException) -> Response:
            code = {404: "no_route", 405: "method"}.get(error.status_code, "refused")
            content = {"error": {"code": code, "message": str(error.detail)}}
            return Response(
                json.dumps(content), error.status_code, error.headers, media_type="application/json"
            )

        return app


def _ready_responses() -> dict[int | str, dict[str, Any]]:
    return {503: {"description": "The service is stopping."}}


def _leaves_a_body(scope: Scope) -> bool:
    """Whether a request has a body that is long, or of no said length: who does not read it closes the connection."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (
            name == b"content-length" and (not value.isdigit() or int(value[:20]) > _SMALL)
        ):
            return True
    return False


def _watched(send: Send, service: Service, scope: Scope, began: float) -> Send:
    """Counts an answer of the routes, and adds the headers of all."""
    path, more = scope["path"], (*_ALWAYS, *((_CLOSE,) if _leaves_a_body(scope) else ()))

    async def watched(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *more]}
            route = path if path in (*_OPEN, "/v1/card", METRICS, "/openapi.json") else "other"
            service.figures.answered(route, message["status"], time.perf_counter() - began)
        await send(message)

    return watched
