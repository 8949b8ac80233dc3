"""Workers that are starting when Ctrl-C comes do not hear it; their parent does, and programs they start later do too."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pytest

from framework.interrupts import ignore_interrupts, interrupts_held

BLOCKED = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"


def blocked_in_a_new_process():
    return (
        subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True).stdout == "True\n"
    )


def test_processes_and_threads_started_in_the_block_never_see_it():
    assert not blocked_in_a_new_process()
    seen = []
    with interrupts_held():
        assert blocked_in_a_new_process()
        # As pebble does: a thread that starts workers when it pleases.
        late, go = threading.Event(), threading.Event()
        thread = threading.Thread(target=lambda: (go.wait(), seen.append(blocked_in_a_new_process()), late.set()))
        thread.start()
    go.set()
    assert late.wait(20)
    thread.join()
    assert seen == [True]
    assert not blocked_in_a_new_process()


def test_the_parent_hears_it_at_the_end_of_the_block():
    with pytest.raises(KeyboardInterrupt), interrupts_held():  # noqa: PT012 - the end of the block is what raises
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert reached


def test_a_spawned_worker_is_deaf_from_its_first_instruction_and_its_programs_are_not():
    with interrupts_held(), multiprocessing.get_context("spawn").Pool(1, initializer=ignore_interrupts) as pool:
        os.kill(pool._pool[0].pid, signal.SIGINT)  # while it imports
        assert pool.apply(blocked_in_a_new_process) is False
