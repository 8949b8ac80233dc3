"""A run on many hosts: start together, stay together, stop together. Every function here also works in a run of one process.

Every process runs the same program on the same questions; what must be said once is said by process 0 (`is_main`), and what
one process alone can know (a clock, a file, a reward that may time out) goes through `agree` or `on_main`. jax itself starts
through `jax.distributed`, after the roll call of `framework.rollcall` has found everybody.

with joined(cluster, words=("run", "mine.py"), share=lambda: "runs/a", again=lambda run: ("resume", run)) as run: ...
"""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from framework.cluster import Cluster, command_line
from framework.errors import UserError
from framework.rollcall import EXIT_PEER_LOST, Leader, Member, Myself, NotJoined, RollCall, end_process
from framework.runlock import release_all

__all__ = [
    "EXIT_PEER_LOST",
    "NotJoined",
    "agree",
    "agree_on_signal",
    "check_same",
    "fetch",
    "host_name",
    "is_main",
    "joined",
    "leave",
    "on_main",
    "process_count",
    "process_id",
    "settle",
    "was_joined",
]

T = TypeVar("T")
Tree = TypeVar("Tree")

_roll: RollCall | None = None  # of the run that goes on
_joined_once = False
_peer_timeout_s = 0.0
_settled: BaseException | None = None  # the error that `settle` has seen already

# What jax, gloo, NCCL and gRPC write into the errors of a collective whose other end is gone.
_COMMUNICATION = re.compile(
    r"gloo|nccl|unavailable|deadline|coordination|barrier|socket|connection|peer", re.IGNORECASE
)


def process_count() -> int:
    """Processes of this run."""
    return 1 if _roll is None else _roll.me.processes


def process_id() -> int:
    """The number of this process; 0 in a run of one."""
    return 0 if _roll is None else _roll.me.process


def is_main() -> bool:
    """True in the one process that writes files, prints, and judges answers."""
    return process_id() == 0


def was_joined() -> bool:
    """Whether this process has been one of several, also after it has left."""
    return _joined_once


def host_name() -> str:
    return socket.gethostname()


def agree(value: T) -> T:
    """The value of process 0, in every process. JSON types; every process must make the call, in the same order."""
    if _roll is None:
        return value
    if isinstance(_roll, Leader):
        _roll.tell(value)
        return value
    return cast(Member, _roll).hear()


def check_same(what: str, mine: str) -> None:
    """Refuse to go on where this process has another `what` than process 0: a run of different data ends in a hang.

    Raises:
        UserError: in the process that differs; the others are told by its end.
    """
    theirs = agree(mine)
    if theirs != mine:
        raise UserError(
            f"Process {process_id()} has other {what} than process 0 ({mine} there is {theirs}). "
            "Every host must read the same files with the same versions; give a path in the shared folder."
        )


def repr_digest(value: object) -> str:
    """A few letters that differ where two values print differently."""
    return f"digest {hashlib.sha256(repr(value).encode()).hexdigest()[:12]}"


def on_main(make: Callable[[], T]) -> T:
    """Call the function in process 0 only; its result, of JSON types, in every process.

    Raises:
        UserError: in every process, when the function raised one in process 0.
    """
    if _roll is None:
        return make()
    if isinstance(_roll, Leader):
        try:
            value = make()
        except UserError as error:
            _roll.tell({"error": str(error)})
            raise
        _roll.tell({"value": value})
        return value
    told = cast(Member, _roll).hear()
    if "error" in told:
        raise UserError(told["error"])
    return told["value"]


def fetch(tree: Tree) -> Tree:
    """As `jax.device_get`, also for arrays whose rows lie on several hosts: every process gets the whole of them.

    Where something is split over hosts, every process must make the call: it is a collective.
    """
    import jax
    from jax.experimental import multihost_utils

    def whole(x: Any) -> Any:
        if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
            return multihost_utils.process_allgather(x, tiled=True)
        return x

    return jax.device_get(jax.tree.map(whole, tree))


def agree_on_signal(signum: int | None) -> int | None:
    """The stop signal that any process has received, in every process at the same moment. A collective."""
    if _roll is None:
        return signum
    import numpy as np
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(signum or 0)))) or None


@contextlib.contextmanager
def joined(
    cluster: Cluster,
    *,
    words: Sequence[str],
    share: Callable[[], T],
    again: Callable[[T], Sequence[str]],
    say: Callable[[str], None] | None = None,
    say_every_s: float = 30.0,
) -> Iterator[T]:
    """Meet the other processes and start `jax.distributed`; at the end wait for them, or tell them why this one fails.

    `words`: the command without the options of `framework.cluster`, the same on every host. `share`: called in process 0 when
    all are there; its JSON result is what every process gets. `again`: from that result to the command that continues the run.

    Raises:
        NotJoined: not every process came in time.
        UserError: a process was started with another command, version or number.
    """
    global _roll, _joined_once, _peer_timeout_s
    say = say or (lambda text: print(text, flush=True))
    stop: list[str] = []

    def on_lost(text: str, code: int) -> None:
        here = [
            f"error: {text} Process {cluster.process_id} ({host_name()}) stops as well: no step can be finished without it.",
            *stop,
        ]
        release_all()
        end_process("\n".join(here), code)

    me = Myself(
        process=cluster.process_id,
        processes=cluster.processes,
        host=host_name(),
        words=tuple(words),
        versions={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("maypole", "jax", "jaxlib")},
        },
    )
    kind = Leader if cluster.process_id == 0 else Member
    roll = kind(
        me,
        cluster.address,
        command=lambda process: command_line(words, cluster, process),
        join_timeout_s=cluster.join_timeout_s,
        peer_timeout_s=cluster.peer_timeout_s,
        on_lost=on_lost,
        say=say,
        say_every_s=say_every_s,
    )
    if isinstance(roll, Leader):
        roll.gather()
        told = {"share": share(), "jax_port": _free_port(cluster.address)}
        roll.tell(told)
    else:
        told = roll.join()
    command = command_line(again(told["share"]), cluster, cluster.process_id)
    stop.append(
        f"To continue from the newest checkpoint, type on every host, with its own number; on this one:\n  {command}"
    )
    _roll, _joined_once, _peer_timeout_s = roll, True, cluster.peer_timeout_s
    try:
        _start_jax(cluster, told["jax_port"])
        yield told["share"]
    except BaseException as error:
        settle(error)
        leave(_summary(error))
        raise
    leave()


def settle(error: BaseException) -> None:
    """Before an error is reported: if another process is gone, which explains it, end here with the message that says so."""
    global _settled
    if _roll is None or error is _settled or isinstance(error, KeyboardInterrupt | SystemExit):
        return
    _settled = error
    text = f"{type(error).__name__}: {error} {error.__cause__ or ''}"
    ours = isinstance(error, UserError) and error.__cause__ is None
    _roll.wait_for_verdict(0.3 if ours else _peer_timeout_s + 5 if _COMMUNICATION.search(text) else 1.0)


def leave(error: str | None = None) -> None:
    """The end of this process's part: wait for the others, or tell them the error that ends the run. Harmless twice."""
    global _roll
    if _roll is None:
        return
    roll = _roll
    if error is None and "jax" in sys.modules:
        import jax

        jax.distributed.shutdown()  # waits for every process; the roll call still watches
    _roll = None
    roll.leave(error)


def _summary(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "it was stopped with Ctrl-C"
    lines = str(error).strip().splitlines()
    name = "error" if isinstance(error, UserError) else type(error).__name__
    return f"{name}: {lines[0]}" if lines else name


def _start_jax(cluster: Cluster, port: int) -> None:
    """`jax.distributed.initialize`, with the roll call in front of the others' connections (see `framework.relay`)."""
    # jax's own watch ends a process with a stack dump. Ours is faster, unless it fails altogether.
    heartbeat_s = int(max(100, 3 * cluster.peer_timeout_s))
    host = cluster.address[0]
    if any(name.lower() in ("http_proxy", "https_proxy", "grpc_proxy") for name in os.environ):
        os.environ.setdefault("no_grpc_proxy", "127.0.0.1")  # all that gRPC does here is within this machine
    import jax

    if hasattr(jax.config, "jax_enable_preemption_service"):  # it would take SIGTERM from `framework.loop`
        jax.config.update("jax_enable_preemption_service", False)
    local_port = port if cluster.process_id == 0 else _start_relay(host, port)
    jax.distributed.initialize(
        coordinator_address=f"127.0.0.1:{local_port}",
        num_processes=cluster.processes,
        process_id=cluster.process_id,
        local_device_ids=cluster.local_device_ids,
        cluster_detection_method="deactivate",
        initialization_timeout=int(max(60, cluster.join_timeout_s)),
        heartbeat_timeout_seconds=heartbeat_s,
        shutdown_timeout_seconds=heartbeat_s,
        coordinator_bind_address=f"127.0.0.1:{port}" if _loopback(host) else None,
    )
    jax.devices()  # the first use of a device waits for every process: here, where all of them come by


def _start_relay(host: str, port: int) -> int:
    program = str(Path(__file__).with_name("relay.py"))
    # A session of its own: Ctrl-C in a terminal is for the run, which still needs its connection to save.
    relay = subprocess.Popen(
        [sys.executable, "-I", "-S", program, host, str(port)],
        stdin=subprocess.PIPE,  # closes with this process, and the relay with it
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert relay.stdout is not None
    line = relay.stdout.readline()
    if not line:
        raise RuntimeError(f"the relay to process 0 did not start (exit code {relay.wait()})")
    _relays.append(relay)
    return int(line)


_relays: list[subprocess.Popen[bytes]] = []  # kept: a Popen that is collected closes the pipe


def _loopback(host: str) -> bool:
    return host in ("localhost", "127.0.0.1")


def _free_port(address: tuple[str, int]) -> int:
    """The port behind the coordinator's, which a firewall may have been opened for, or any free one."""
    host, port = address
    for candidate in (port + 1, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1" if _loopback(host) else "", candidate))
            except (OSError, OverflowError):
                continue
            return probe.getsockname()[1]
    raise UserError(f"No port is free on {host_name()} for jax's coordination service.")
