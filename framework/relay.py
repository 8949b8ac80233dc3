"""Carries the bytes of jax's coordination service between this machine and process 0. A program of its own, started by
`framework.distributed`; it imports nothing but the standard library and ends with the process that started it.

Why it exists: a jax client whose connection to process 0 closes ends its whole process at once, with a stack dump that names
nobody. Behind the relay the connection stays open when process 0 dies, so that the roll call (`framework.rollcall`), which
sees the death as well, has the time to say what happened and what to type. It is no thread of the main process because jax
may wait for the coordination service while it holds Python's global lock.
"""

import os
import socket
import sys
import threading
import time

RETRY_S = 0.2
CONNECT_S = 300.0  # process 0 may be slow to open its service


def main() -> None:
    """Arguments: host and port of jax's service. Prints the local port, then serves until its standard input closes."""
    host, port = sys.argv[1], int(sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        local, _ = listener.accept()
        threading.Thread(target=_carry, args=(local, host, port), daemon=True).start()


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


def _carry(local: socket.socket, host: str, port: int) -> None:
    remote = _connect(host, port)
    if remote is None:
        local.close()
        return
    for end in (local, remote):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=_answers, args=(remote, local), daemon=True).start()
    _copy(local, remote)
    remote.close()
    local.close()


def _answers(remote: socket.socket, local: socket.socket) -> None:
    """When the far end closes, the near end stays open and silent: that is the point of this program."""
    _copy(remote, local)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:
        return  # either end is gone


def _connect(host: str, port: int) -> socket.socket | None:
    deadline = time.monotonic() + CONNECT_S
    while time.monotonic() < deadline:
        try:
            remote = socket.create_connection((host, port), timeout=10.0)
        except OSError:
            time.sleep(RETRY_S)
        else:
            remote.settimeout(None)  # the service may be silent for long
            return remote
    return None


if __name__ == "__main__":
    main()
