"""Errors as the OpenAI API writes them: a status, and `{"error": {"message", "type", "param", "code"}}`."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

__all__ = ["ApiError", "ClientGone", "dumps", "failed", "json_response", "queue_full", "shutting_down"]

_KINDS = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class ApiError(Exception):
    """A request that gets no answer, and what its client is told."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """What clients parse."""
        kind = _KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The whole answer."""
        return json_response(self.body(), self.status, self.headers)


class ClientGone(Exception):
    """The client closed its connection: nobody reads the answer."""


def queue_full(waiting: int) -> ApiError:
    """More is waiting than the server was told to keep."""
    message = f"The server is busy: {waiting} answer(s) wait, and there is no room for more. Try again in a moment."
    return ApiError(429, message, code="queue_full", headers={"Retry-After": "1"})


def shutting_down() -> ApiError:
    """The server was told to stop."""
    return ApiError(503, "The server is shutting down.", code="shutting_down", headers={"Retry-After": "10"})


def failed(reason: str) -> ApiError:
    """The engine broke; the log of the server has the traceback."""
    return ApiError(500, f"The generation engine failed: {reason}", code="engine_failed")


def dumps(value: Any) -> bytes:
    """JSON in UTF-8. Half of a character, which a request may hold, is written as the escape it came as."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of one JSON object."""
    return Response(dumps(value), status, dict(headers or {}), "application/json")
