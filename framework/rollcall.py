"""Who is there: the processes of a run find each other, and notice when one of them is gone. TCP and JSON lines; no jax.

Process 0 listens; every other process keeps one connection to it from the start to the end of the run. A process that is
killed closes its connection at once, a machine that is cut off falls silent; both are told to all with the name of the host,
where jax's own watch would end each process with a stack dump after minutes, or leave it waiting in a collective for ever.
Small values that process 0 alone can know (a folder's name, rewards of functions that may time out) travel the same way.
"""

import dataclasses
import json
import os
import queue
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from framework.errors import UserError

__all__ = ["EXIT_PEER_LOST", "Leader", "Member", "Myself", "NotJoined", "RollCall"]

EXIT_PEER_LOST = 75  # EX_TEMPFAIL of sysexits.h: the same command may work when it is tried again

BEAT_S = 2.0
GRACE_S = (
    10.0  # after "process 2 stopped with an error": often this process finds the same error itself, and says it better
)
RETRY_S = 0.3
SEND_S = 10.0
SHOWN = 8  # names and commands listed in full

_CLOSED = "its connection closed without a word: it was killed, ran out of memory, or its machine went down"


class NotJoined(UserError):
    """Not every process came, or the port was still taken. Trying again may help, so the exit code is that of a lost process."""

    exit_code = EXIT_PEER_LOST


@dataclasses.dataclass(frozen=True, kw_only=True)
class Myself:
    """What a process says about itself."""

    process: int
    processes: int
    host: str
    words: tuple[str, ...]
    """The command without what differs from host to host."""
    versions: dict[str, str]


class _Line:
    """One connection that carries JSON objects, a line each."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(SEND_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.process = -1
        self.host = "?"
        self.left = False  # said goodbye
        self.heard_s = time.monotonic()
        self._buffer = b""
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> bool:
        """False when the other end is gone, which the reading side finds out as well."""
        data = json.dumps(message).encode() + b"\n"
        try:
            with self._lock:
                self.sock.sendall(data)
        except OSError:
            return False
        return True

    def read(self) -> Iterator[dict[str, Any]]:
        """The whole messages that have arrived. Raises EOFError at the end of the connection."""
        try:
            data = self.sock.recv(1 << 16)
        except TimeoutError:
            return
        except OSError:
            data = b""
        if not data:
            raise EOFError
        self.heard_s = time.monotonic()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                raise EOFError from None  # somebody else knocked at this port
            if not isinstance(message, dict):
                raise EOFError
            yield message

    def close(self) -> None:
        self.sock.close()


class RollCall:
    """What leader and members share: the watch in the background, and how a process ends when another is gone."""

    def __init__(self, me: Myself, *, peer_timeout_s: float, on_lost: Callable[[str, int], None]) -> None:
        """on_lost: called in the watching thread with a sentence that names the lost process, and an exit code: it should end
        this process. The code is EXIT_PEER_LOST, or 1 after an error of the other that may come again."""
        self.me = me
        self.hosts: dict[int, str] = {me.process: me.host}
        self._peer_timeout_s = peer_timeout_s
        self._on_lost = on_lost
        self._closed = threading.Event()
        self._doom: tuple[float, str] | None = None  # when to give up, and why
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Look after the others in a thread from now on."""
        self._thread = threading.Thread(target=self._guard, name="roll call", daemon=True)
        self._thread.start()

    def wait_for_verdict(self, seconds: float) -> None:
        """Give the watch time to find out that another process is gone; then `on_lost` ends this one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._closed.is_set():
            time.sleep(0.05)

    def lost(self, name: str, why: str) -> None:
        """End this process, unless it is leaving anyway."""
        if not self._closed.is_set():
            self._closed.set()
            self._on_lost(f"{name} is gone: {why}.", EXIT_PEER_LOST)

    def stopped(self, name: str, why: str) -> None:
        """Another process ended with an error: end this one soon."""
        self._doom = self._doom or (time.monotonic() + GRACE_S, f"{name} has stopped: {why.rstrip('.')}.")

    def _guard(self) -> None:
        beat_s = 0.0
        while not self._closed.is_set():
            self._listen(0.2)
            now = time.monotonic()
            if now - beat_s >= BEAT_S:
                beat_s = now
                self._beat()
            if self._doom is not None and now >= self._doom[0] and not self._closed.is_set():
                self._closed.set()
                self._on_lost(self._doom[1], 1)

    def _too_quiet(self, line: _Line) -> str | None:
        silent_s = time.monotonic() - line.heard_s
        if silent_s <= self._peer_timeout_s:
            return None
        return f"nothing was heard of it for {silent_s:.0f} s (its machine hangs, or the network between is down)"

    def leave(self, error: str | None = None) -> None:
        """Say goodbye, or why the run ends here."""
        raise NotImplementedError

    def _listen(self, seconds: float) -> None:
        raise NotImplementedError

    def _beat(self) -> None:
        raise NotImplementedError


class Leader(RollCall):
    """Process 0."""

    def __init__(
        self,
        me: Myself,
        address: tuple[str, int],
        *,
        command: Callable[[int], str],
        join_timeout_s: float,
        peer_timeout_s: float,
        on_lost: Callable[[str, int], None],
        say: Callable[[str], None],
        say_every_s: float = 30.0,
    ) -> None:
        """command: what is typed on the host of a process."""
        super().__init__(me, peer_timeout_s=peer_timeout_s, on_lost=on_lost)
        self._command, self._say, self._say_every_s = command, say, say_every_s
        self._join_timeout_s = join_timeout_s
        self._lines: dict[int, _Line] = {}
        self._number = 0  # values told so far
        self._poll = selectors.DefaultSelector()
        self._listener = _listen_on(address)

    def gather(self) -> None:
        """Return once every process is connected, and watch over them from then on. Raises NotJoined."""
        self._poll.register(self._listener, selectors.EVENT_READ)
        began_s = said_s = beat_s = time.monotonic()
        strangers: set[_Line] = set()
        while len(self._lines) < self.me.processes - 1:
            for key, _ in self._poll.select(0.2):
                if key.data is None:
                    line = _Line(self._listener.accept()[0])
                    self._poll.register(line.sock, selectors.EVENT_READ, line)
                    strangers.add(line)
                elif self._hear_newcomer(key.data):
                    strangers.discard(key.data)
            now = time.monotonic()
            if now - beat_s >= BEAT_S:
                beat_s = now
                self._beat()
            if now - began_s >= self._join_timeout_s:
                text = self._who(now - began_s)
                for line in self._lines.values():
                    line.send({"refused": f"Not all came. {text}"})
                self._shut()
                raise NotJoined(f"{text}\nThen start process 0 again. --join-timeout SECONDS waits longer.")
            if now - said_s >= self._say_every_s:
                said_s = now
                self._say(self._who(now - began_s))
        for line in strangers:
            self._drop(line)
        self._poll.unregister(self._listener)
        self._listener.close()
        names = [f"{i} ({self.hosts[i]})" for i in sorted(self.hosts)]
        self._say(f"{self.me.processes} of {self.me.processes} processes joined: {_some(names)}")
        self.watch()

    def _hear_newcomer(self, line: _Line) -> bool:
        """True once the newcomer has said who it is, and is one of us."""
        try:
            for message in line.read():
                if line.process >= 0:
                    continue  # a heartbeat of one that waits for the others
                if (why := self._refusal(message)) is not None:
                    line.send({"refused": why})
                    self._drop(line)
                    return True
                line.process, line.host = message["process"], str(message["host"])
                self._lines[line.process] = line
                self.hosts[line.process] = line.host
        except EOFError:
            self._drop(line)
            if self._lines.get(line.process) is line:
                del self._lines[line.process], self.hosts[line.process]  # it may come again
            return True
        return line.process >= 0

    def _refusal(self, message: dict[str, Any]) -> str | None:
        process, host = message.get("process"), message.get("host")
        if not isinstance(process, int) or "words" not in message:
            return "This port belongs to a run of maypole."
        if message.get("processes") != self.me.processes:
            return (
                f"Process 0 was started with --processes {self.me.processes}, this one with {message.get('processes')}."
            )
        if process in self.hosts or not 0 < process < self.me.processes:
            free = [str(i) for i in range(1, self.me.processes) if i not in self.hosts]
            return (
                f"--process-id {process} is taken by {self.hosts.get(process, 'nobody')}; {host} cannot have it as well. "
                f"Free: {_some(free) or 'none'}."
            )
        if list(message["words"]) != list(self.me.words):
            mine, theirs = " ".join(self.me.words), " ".join(map(str, message["words"]))
            return (
                f"Process 0 was started with\n  maypole {mine}\nand this one with\n  maypole {theirs}\n"
                "Type the same on every host."
            )
        if message.get("versions") != self.me.versions:
            return (
                f"Process 0 has {self.me.versions}, this one {message.get('versions')}. Install the same on every host."
            )
        return None

    def _who(self, waited_s: float) -> str:
        here = [f"{i} ({self.hosts[i]})" for i in sorted(self.hosts)]
        missing = [i for i in range(self.me.processes) if i not in self.hosts]
        lines = [f"  {self._command(i)}" for i in missing[:SHOWN]]
        more = [f"  ... and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
        return "\n".join(
            [
                f"{len(here)} of {self.me.processes} processes joined: {_some(here)}; missing after {waited_s:.0f} s: "
                f"{_some([str(i) for i in missing])}. On each missing host type:",
                *lines,
                *more,
            ]
        )

    def tell(self, value: Any) -> None:
        """The next `Member.hear` of every member returns this (JSON) value."""
        self._number += 1
        for line in self._lines.values():
            line.send({"value": value, "number": self._number})

    def leave(self, error: str | None = None) -> None:
        """Say goodbye; without an error, first wait for the others to do so."""
        if error is not None:
            for line in self._lines.values():
                line.send({"stopped": [self._name(0, self.me.host), error]})
        else:
            deadline = time.monotonic() + SEND_S
            while time.monotonic() < deadline and not all(line.left for line in self._lines.values()):
                time.sleep(0.02)
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=SEND_S)
        self._shut()

    def _listen(self, seconds: float) -> None:
        for key, _ in self._poll.select(seconds):
            line: _Line = key.data
            try:
                for message in line.read():
                    if "left" in message:
                        line.left = True
                        if message["left"]:
                            name = self._name(line.process, line.host)
                            self._warn_others(line, {"stopped": [name, message["left"]]})
                            self.stopped(name, message["left"])
            except EOFError:
                self._drop(line)
                if not line.left:
                    self._lose(line, _CLOSED)
        for line in self._lines.values():
            if not line.left and (why := self._too_quiet(line)):
                self._lose(line, why)

    def _lose(self, line: _Line, why: str) -> None:
        line.left = True  # said once
        name = self._name(line.process, line.host)
        self._warn_others(line, {"lost": [name, why]})
        self.lost(name, why)

    def _warn_others(self, about: _Line, message: dict[str, Any]) -> None:
        for line in self._lines.values():
            if line is not about and not line.left:
                line.send(message)

    def _beat(self) -> None:
        for line in self._lines.values():
            if not line.left:
                line.send({})

    def _drop(self, line: _Line) -> None:
        self._poll.unregister(line.sock)
        line.close()

    def _shut(self) -> None:
        self._listener.close()
        for line in self._lines.values():
            line.close()
        self._poll.close()

    def _name(self, process: int, host: str) -> str:
        return f"process {process} ({host})"


class Member(RollCall):
    """Any process but 0."""

    def __init__(
        self,
        me: Myself,
        address: tuple[str, int],
        *,
        command: Callable[[int], str],
        join_timeout_s: float,
        peer_timeout_s: float,
        on_lost: Callable[[str, int], None],
        say: Callable[[str], None],
        say_every_s: float = 30.0,
    ) -> None:
        super().__init__(me, peer_timeout_s=peer_timeout_s, on_lost=on_lost)
        self._address, self._command, self._say, self._say_every_s = address, command, say, say_every_s
        self._join_timeout_s = join_timeout_s
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._line = self._connect()

    def _connect(self) -> _Line:
        began_s = said_s = time.monotonic()
        place = f"{self._address[0]}:{self._address[1]}"
        while True:
            try:
                return _Line(socket.create_connection(self._address, timeout=5.0))
            except OSError as error:
                now = time.monotonic()
                todo = f"On the host of process 0 type:\n  {self._command(0)}"
                if now - began_s >= self._join_timeout_s:
                    raise NotJoined(
                        f"Process {self.me.process} ({self.me.host}) has not found process 0 at {place} within "
                        f"{now - began_s:.0f} s ({error}). {todo}"
                    ) from None
                if now - said_s >= self._say_every_s:
                    said_s = now
                    self._say(
                        f"Process {self.me.process} ({self.me.host}) looks for process 0 at {place} since "
                        f"{now - began_s:.0f} s ({error}). {todo}"
                    )
                time.sleep(RETRY_S)

    def join(self) -> Any:
        """Say who this is, wait for the others, and return the first value that process 0 tells. Raises UserError."""
        self._line.send(dataclasses.asdict(self.me))
        self.watch()
        return self.hear()

    def hear(self) -> Any:
        """The next value that process 0 tells."""
        kind, value = self._heard.get()
        if kind == "refused":
            self._closed.set()
            raise NotJoined(value) if value.startswith("Not all came") else UserError(value)
        return value

    def leave(self, error: str | None = None) -> None:
        """Say goodbye."""
        self._closed.set()
        self._line.send({"left": error or ""})
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=SEND_S)
        self._line.close()

    def _listen(self, seconds: float) -> None:
        poll = selectors.DefaultSelector()
        poll.register(self._line.sock, selectors.EVENT_READ)
        ready = poll.select(seconds)
        poll.close()
        leader = "process 0, which leads the run,"
        try:
            for message in self._line.read() if ready else ():
                if "refused" in message:
                    self._heard.put(("refused", message["refused"]))
                    self._closed.set()
                elif "value" in message:
                    self._heard.put(("value", message["value"]))
                elif "lost" in message:
                    self.lost(*message["lost"])
                elif "stopped" in message:
                    self.stopped(*message["stopped"])
        except EOFError:
            if self._doom is None:
                self.lost(leader, _CLOSED)
            time.sleep(0.2)  # the connection is at its end and always ready; wait for the grace to pass
            return
        if why := self._too_quiet(self._line):
            self.lost(leader, why)

    def _beat(self) -> None:
        self._line.send({})


def _listen_on(address: tuple[str, int]) -> socket.socket:
    host, port = address
    try:
        if host in ("localhost", "127.0.0.1"):  # a rehearsal on one machine: nobody else may knock
            return socket.create_server(("127.0.0.1", port), backlog=1024)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise NotJoined(
            f"Process 0 cannot listen on port {port}: {error.strerror or error}. Is an earlier run still ending, or a second "
            f"process 0 running? Choose another port on every host: --coordinator {host}:OTHER"
        ) from None


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[: 2 * SHOWN])
    return shown if len(names) <= 2 * SHOWN else f"{shown} and {len(names) - 2 * SHOWN} more"


def end_process(text: str, code: int) -> NoReturn:
    """Print and end the process where it stands: other threads may hang in a collective for ever."""
    try:
        sys.stdout.flush()
        os.write(2, f"\n{text}\n".encode())
    finally:
        os._exit(code)
