"""Start and end of the server: a socket that is free, signals, and what becomes of answers that are under way."""

import asyncio
import math
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from framework.errors import UserError
from framework.serve.app import build_app
from framework.serve.service import Service

__all__ = ["Server", "bind"]

_LAST = 5.0  # seconds for what is left to do after the grace time: sending the errors, ending the round of the engine


def bind(host: str, port: int) -> socket.socket:
    """A socket for this address, before anything slow begins. It refuses connections until the server listens.

    Raises:
        UserError: an address that is not of this machine, or that another process has.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # a UnicodeError where part of a name is too long
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"--host {host!r:.80} is no address of this machine ({why}).") from error
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except OSError as error:
        found.close()
        raise UserError(
            f"--host {host} --port {port} cannot be had: {error.strerror}. Give another port, or --port 0 for any that is free."
        ) from error
    return found


class Server(uvicorn.Server):
    """uvicorn's server, whose signals mean "finish what is under way, then end"."""

    def __init__(
        self,
        service: Service,
        *,
        grace: float,
        ready: Callable[[], None] = lambda: None,
        access_log: bool = False,
    ):
        """`grace`: seconds to finish what is under way when told to stop. `ready` is called once connections are taken."""
        config = uvicorn.Config(
            build_app(service),
            log_level="info" if access_log else "warning",
            access_log=access_log,
            ws="none",
            lifespan="off",
            server_header=False,
            # The grace time is counted in `shutdown`; this is for connections that do not even take an error.
            timeout_graceful_shutdown=math.ceil(grace + _LAST),
        )
        super().__init__(config)
        self._service, self._grace, self._ready = service, grace, ready
        self._loop: asyncio.AbstractEventLoop | None = None

    def answer(self, listener: socket.socket) -> bool:
        """Answer requests until SIGTERM, SIGINT or `stop`; a second signal ends the grace time. False if the engine failed."""
        return asyncio.run(self._answer(listener))

    async def _answer(self, listener: socket.socket) -> bool:
        worker, self._loop = self._service.worker, asyncio.get_running_loop()
        worker.on_failure(self.stop)  # whoever supervises this process should start another
        worker.start()
        try:
            await self.serve([listener])
        finally:
            await asyncio.to_thread(worker.stop, _LAST)
            self._service.close()
        return worker.failure is None

    def stop(self) -> None:
        """As after SIGTERM; from any thread."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn would raise the signal again at the end, and the exit code would be the signal's."""
        if self.should_exit and self._loop is not None:
            self.force_exit = True
            self._loop.call_soon_threadsafe(self._service.end)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections, and say so."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """No new connections; what is under way has the grace time, then gets an error."""
        self._service.draining = True
        timer = asyncio.get_running_loop().call_later(self._grace, self._service.end)
        await super().shutdown(sockets)
        timer.cancel()
