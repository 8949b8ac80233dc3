"""The routes, and the door before them: API key, counting, errors in the shape of the OpenAI API."""

import hashlib
import hmac
import logging
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from framework.serve.answers import Answer, respond
from framework.serve.chat import ChatAnswer
from framework.serve.completions import TextAnswer
from framework.serve.errors import ApiError, ClientGone, json_response
from framework.serve.service import Service

__all__ = ["build_app"]

MAX_BODY = 8 * 2**20
"""Bytes of the largest request; a prompt of 100,000 token ids has under one million."""

BODY_SECONDS = 30.0
"""For a whole request to come in once its head is here."""

log = logging.getLogger("maypole.serve")


def build_app(service: Service) -> ASGIApp:
    """The whole application over one model."""
    routes = [
        Route("/v1/completions", _answering(service, TextAnswer), methods=["POST"]),
        Route("/v1/chat/completions", _answering(service, ChatAnswer), methods=["POST"]),
        Route("/v1/models", _models(service), methods=["GET"]),
        Route("/v1/models/{name:path}", _model(service), methods=["GET"]),
        Route("/health", _health(service), methods=["GET"]),
        Route("/metrics", _metrics(service), methods=["GET"]),
    ]
    handlers = {
        ApiError: _api_error,
        HTTPException: _http_error,
        ClientGone: _gone,
        ClientDisconnect: _gone,
        Exception: _mistake,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)  # pyright: ignore[reportArgumentType]
    app.router.redirect_slashes = False  # /health/ is not there, and says so as every other path does
    return _Door(app, service, {route.path for route in routes})


class _Door:
    """Checks the API key and counts answers. Around everything, so that unknown paths are asked for the key as well."""

    def __init__(self, app: ASGIApp, service: Service, paths: set[str]):
        self._app, self._service, self._paths = app, service, paths
        self._key = None if service.api_key is None else _digest(service.api_key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "the server speaks nothing else"
        path = scope["path"]
        whole = False

        async def counted(message: Message) -> None:
            nonlocal whole
            if message["type"] == "http.response.start":
                self._service.metrics.request(self._label(path), message["status"])
            whole = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            if path.startswith("/v1/") and not self._allowed(scope):
                await _no_key().response()(scope, receive, counted)
            else:
                await self._app(scope, receive, counted)
        except Exception:
            if not whole:
                raise  # uvicorn logs it and cuts the connection, so that half an answer does not look like a whole one

    def _allowed(self, scope: Scope) -> bool:
        if self._key is None:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        # Digests have one length, so that the time of the comparison says nothing about the key.
        return scheme.lower() == b"bearer" and hmac.compare_digest(_digest(key.strip(b" ")), self._key)

    def _label(self, path: str) -> str:
        """One of a few, whatever is asked for."""
        return path if path in self._paths else "/v1/models" if path.startswith("/v1/models/") else "other"


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def _no_key() -> ApiError:
    message = "Incorrect API key provided. Send the key the server was started with: Authorization: Bearer KEY"
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _answering(service: Service, read: Callable[[bytes, Service], Answer]):
    async def endpoint(http: HttpRequest) -> Response:
        return await respond(http, service, await service.read(read, await _body(http, service)))

    return endpoint


async def _body(http: HttpRequest, service: Service) -> bytes:
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page of another site cannot send this kind unasked from somebody's browser
        message = f"The request has the content type {kind or 'nothing'!r:.60}. Send Content-Type: application/json."
        raise ApiError(415, message)
    parts, size = [], 0
    async with service.arriving(BODY_SECONDS):
        async for part in http.stream():
            size += len(part)
            if size > MAX_BODY:
                message = f"The request is larger than {MAX_BODY // 2**20} MiB. Send fewer or shorter prompts."
                raise ApiError(413, message, headers={"Connection": "close"})
            parts.append(part)
    return b"".join(parts)


def _models(service: Service):
    async def endpoint(_: HttpRequest) -> Response:
        return json_response({"object": "list", "data": [_card(service, name) for name in service.names]})

    return endpoint


def _model(service: Service):
    async def endpoint(http: HttpRequest) -> Response:
        name = http.path_params["name"]
        if name not in service.names:
            raise service.no_model(name)
        return json_response(_card(service, name))

    return endpoint


def _card(service: Service, name: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "maypole",
        "max_model_len": service.limits.max_length,
    }


def _health(service: Service):
    async def endpoint(_: HttpRequest) -> Response:
        failed = service.worker.failure is not None
        status = "failed" if failed else "shutting down" if service.draining else "ok"
        return json_response({"status": status}, 200 if status == "ok" else 503)

    return endpoint


def _metrics(service: Service):
    async def endpoint(_: HttpRequest) -> Response:
        text = service.metrics.text(service.worker.gauges)
        return Response(text, media_type="text/plain; version=0.0.4")

    return endpoint


async def _api_error(_: HttpRequest, error: ApiError) -> Response:
    return error.response()


async def _http_error(http: HttpRequest, error: HTTPException) -> Response:
    """Starlette's own: no such path, not this method."""
    where = f"{http.method} {http.url.path[:100]}"
    messages = {
        404: f"There is no {where}. This server has /v1/completions, /v1/chat/completions, /v1/models, /health and /metrics.",
        405: f"{where} is not allowed; {(error.headers or {}).get('Allow', 'another method')} is.",
    }
    message = messages.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, headers=error.headers).response()


async def _gone(_: HttpRequest, error: Exception) -> Response:
    """Nobody reads it; the status is what metrics show."""
    return Response(status_code=499)


async def _mistake(http: HttpRequest, error: Exception) -> Response:
    """Starlette raises the error again once this is sent."""
    log.error("A request to %s failed inside the server.", http.url.path, exc_info=error)
    return ApiError(500, "The server made a mistake; its log says which.").response()
