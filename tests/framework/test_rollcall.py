"""The roll call in threads of one process: who joins, who is refused, who is missed, and who is missed later."""

import queue
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from framework import relay
from framework.cli_run import _run_parser
from framework.cluster import Cluster, find_cluster
from framework.errors import UserError
from framework.rollcall import EXIT_PEER_LOST, Leader, Member, Myself, NotJoined

WORDS = ("run", "mine.py")


class Room:
    """A port, and what leader and members of a test said and lost."""

    def __init__(self, processes=3, join_s=20.0, peer_s=20.0):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.processes, self.join_s, self.peer_s = processes, join_s, peer_s
        self.said, self.lost = [], queue.SimpleQueue()
        self.rolls = []

    def make(self, process, *, words=WORDS, processes=None, say_every_s=0.5, jax="1"):
        me = Myself(
            process=process,
            processes=processes or self.processes,
            host=f"host-{process}",
            words=words,
            versions={"jax": jax},
        )
        roll = (Leader if process == 0 else Member)(
            me,
            ("127.0.0.1", self.port),
            command=lambda i: f"maypole run mine.py --process-id {i}",
            join_timeout_s=self.join_s,
            peer_timeout_s=self.peer_s,
            on_lost=lambda text, code: self.lost.put((process, text, code)),
            say=self.said.append,
            say_every_s=say_every_s,
        )
        self.rolls.append(roll)
        return roll

    def in_thread(self, action, *args, **kwargs):
        """A thread's result, or the exception it ended with, through `.get()`."""
        result = queue.SimpleQueue()

        def work():
            try:
                result.put(action(*args, **kwargs))
            except Exception as error:
                result.put(error)

        threading.Thread(target=work, daemon=True).start()
        return result

    def meet(self):
        """All join; returns leader and members."""
        leader = self.make(0)
        gathered = self.in_thread(leader.gather)
        members = [self.make(i) for i in range(1, self.processes)]
        joins = [self.in_thread(member.join) for member in members]
        assert gathered.get(timeout=10) is None
        leader.tell("hello")
        assert [join.get(timeout=10) for join in joins] == ["hello"] * len(members)
        return leader, members


@pytest.fixture
def room():
    made = Room()
    yield made
    for roll in made.rolls:
        roll._closed.set()


def test_all_join_and_hear_what_process_0_tells_in_its_order(room):
    leader, members = room.meet()
    assert room.said[-1] == "3 of 3 processes joined: 0 (host-0), 1 (host-1), 2 (host-2)"
    for value in (1 / 3, {"rewards": [0.1]}, None):
        leader.tell(value)
    for member in members:
        assert [member.hear() for _ in range(3)] == [1 / 3, {"rewards": [0.1]}, None]
    for member in members:
        member.leave()
    leader.leave()
    assert room.lost.empty()


def test_who_is_missing_and_what_to_type_there_is_said_while_waiting(room):
    leader = room.make(0)
    room.in_thread(leader.gather)
    room.in_thread(room.make(2).join)
    deadline = time.monotonic() + 10
    while not any("host-2" in text for text in room.said):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    text = next(text for text in room.said if "host-2" in text)
    assert text.startswith("2 of 3 processes joined: 0 (host-0), 2 (host-2); missing after ")
    assert text.endswith("s: 1. On each missing host type:\n  maypole run mine.py --process-id 1")


def test_after_the_time_to_join_all_that_came_end_with_the_list_of_those_that_did_not():
    room = Room(join_s=1.0)
    gathered = room.in_thread(room.make(0).gather)
    joined = room.in_thread(room.make(1).join)
    for result in (gathered.get(timeout=10), joined.get(timeout=10)):
        assert isinstance(result, NotJoined)
        assert "2 of 3 processes joined" in str(result)
        assert "--process-id 2" in str(result)
        assert result.exit_code == EXIT_PEER_LOST


def test_a_member_that_finds_nobody_says_what_to_type_on_the_host_of_process_0():
    room = Room(join_s=1.0)
    with pytest.raises(NotJoined, match=r"has not found process 0 at 127.0.0.1:\d+ within 1 s") as raised:
        room.make(1)
    assert "--process-id 0" in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": 1}, "--process-id 1 is taken by host-1"),
        ({"process": 9, "processes": 3}, "Free: 2"),
        ({"process": 2, "processes": 4}, "--processes 3, this one with 4"),
        ({"process": 2, "words": ("run", "other.py")}, "Type the same on every host"),
        ({"process": 2, "jax": "2"}, "Install the same on every host"),
    ],
)
def test_a_process_that_belongs_elsewhere_is_refused_and_the_others_go_on_waiting(room, change, message):
    leader = room.make(0)
    gathered = room.in_thread(leader.gather)
    joined = room.in_thread(room.make(1).join)
    while 1 not in leader.hosts:
        time.sleep(0.02)
    with pytest.raises(UserError, match=message):
        room.make(**change).join()
    other = room.in_thread(room.make(2).join)
    assert gathered.get(timeout=10) is None
    leader.tell(7)
    assert joined.get(timeout=10) == other.get(timeout=10) == 7


def test_a_stranger_at_the_port_disturbs_nobody(room):
    leader = room.make(0)
    gathered = room.in_thread(leader.gather)
    with socket.create_connection(("127.0.0.1", room.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n[1]\n")
        joins = [room.in_thread(room.make(i).join) for i in (1, 2)]
        assert gathered.get(timeout=10) is None
        leader.tell(0)
        assert [join.get(timeout=10) for join in joins] == [0, 0]


def losses(room, count):
    return {process: (text, code) for process, text, code in (room.lost.get(timeout=15) for _ in range(count))}


def test_a_connection_that_closes_without_goodbye_is_told_to_everybody_by_name(room):
    _, members = room.meet()
    members[1]._closed.set()
    members[1]._line.sock.shutdown(socket.SHUT_RDWR)  # what the system does for a process that is killed
    found = losses(room, 2)
    assert set(found) == {0, 1}
    for text, code in found.values():
        assert text.startswith("process 2 (host-2) is gone: its connection closed")
        assert code == EXIT_PEER_LOST


def test_without_process_0_every_member_stops(room):
    leader, _ = room.meet()
    leader._closed.set()
    leader._thread.join()
    leader._shut()
    found = losses(room, 2)
    assert all(text.startswith("process 0, which leads the run, is gone") for text, _ in found.values())


def test_a_silent_machine_is_given_up_after_the_peer_timeout():
    room = Room(peer_s=5.0)  # two and a half heartbeats
    _, members = room.meet()
    members[1]._closed.set()  # its watch ends, its connection stays open
    began = time.monotonic()
    found = losses(room, 2)
    assert 3 < time.monotonic() - began < 10  # heartbeats come every 2 s
    assert all("process 2 (host-2) is gone: nothing was heard of it for" in text for text, _ in found.values())


def test_an_error_of_one_process_ends_the_others_after_a_grace_in_which_they_may_find_it_themselves(room, monkeypatch):
    monkeypatch.setattr("framework.rollcall.GRACE_S", 0.5)
    _, members = room.meet()
    members[0].leave("RuntimeError: a bug")
    found = losses(room, 2)
    assert found == dict.fromkeys((0, 2), ("process 1 (host-1) has stopped: RuntimeError: a bug.", 1))


def options(*words):
    return _run_parser().parse_args(list(words))


def test_options_and_variables_name_the_same_cluster():
    want = Cluster(coordinator="host-0:8476", processes=4, process_id=2)
    words = ["--coordinator", "host-0:8476", "--processes", "4", "--process-id", "2"]
    env = {"MAYPOLE_COORDINATOR": "host-0:8476", "MAYPOLE_PROCESSES": "4", "MAYPOLE_PROCESS_ID": "2"}
    assert find_cluster(options(*words), {}) == find_cluster(options(), env) == want
    assert find_cluster(options("--process-id", "2"), env | {"MAYPOLE_PROCESS_ID": "1"}) == want  # what is typed wins
    assert find_cluster(options(), {}) is None
    assert want.options(3) == ["--coordinator", "host-0:8476", "--processes", "4", "--process-id", "3"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--coordinator", "h:1"], "--processes and --process-id are missing"),
        (["--coordinator", "h", "--processes", "2", "--process-id", "0"], "is not HOST:PORT"),
        (["--coordinator", "h:99999", "--processes", "2", "--process-id", "0"], "is not HOST:PORT"),
        (["--coordinator", "h:1", "--processes", "2", "--process-id", "2"], "from 0 to 1"),
        (["--coordinator", "h:1", "--processes", "0", "--process-id", "0"], "of at least 1"),
        (["--peer-timeout", "soon"], "--peer-timeout soon is no time"),
    ],
)
def test_options_that_name_no_cluster_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        find_cluster(options(*words), {})


def test_distributed_finds_a_slurm_step_and_leaves_all_gpus_to_a_task_that_is_alone(monkeypatch):
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "node[003-006]",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
        "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
    }
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    found = find_cluster(options("--distributed"))
    assert found is not None
    assert (found.processes, found.process_id, found.local_device_ids) == (4, 2, None)
    assert found.coordinator.startswith("node003:")
    assert found.options(3) == ["--distributed"]
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "8(x4)")
    assert find_cluster(options("--distributed")).local_device_ids == (0,)


def test_distributed_outside_of_a_cluster_says_what_to_type_instead():
    with pytest.raises(UserError, match="--coordinator HOST0:8476 --processes N --process-id I"):
        find_cluster(options("--distributed"))


def test_the_relay_carries_both_ways_and_hides_the_end_of_the_far_side():
    far = socket.create_server(("127.0.0.1", 0))
    program = [sys.executable, "-I", "-S", str(Path(relay.__file__)), "127.0.0.1", str(far.getsockname()[1])]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        near = socket.create_connection(("127.0.0.1", int(process.stdout.readline())))
        there, _ = far.accept()
        near.sendall(b"question")
        assert there.recv(100) == b"question"
        there.sendall(b"answer")
        assert near.recv(100) == b"answer"
        there.close()
        far.close()
        near.settimeout(1.0)
        with pytest.raises(TimeoutError):  # not b"", which would be the end
            near.recv(100)
        process.stdin.close()  # the parent ends
        assert process.wait(10) == 0


@pytest.mark.slow  # it waits longer than the time a connection may take to be made
def test_the_relay_survives_a_long_silence():
    far = socket.create_server(("127.0.0.1", 0))
    program = [sys.executable, "-I", "-S", str(Path(relay.__file__)), "127.0.0.1", str(far.getsockname()[1])]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        near = socket.create_connection(("127.0.0.1", int(process.stdout.readline())))
        there, _ = far.accept()
        time.sleep(11)
        there.sendall(b"late")
        near.settimeout(5.0)
        assert near.recv(100) == b"late"
        process.stdin.close()
