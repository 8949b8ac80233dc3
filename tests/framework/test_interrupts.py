"""Workers that are starting when Ctrl-C comes do not hear it; their parent does, and programs they start later do too."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

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


@pytest.mark.parametrize("whose", ["this thread", "another thread"])
def test_the_parent_hears_it_at_the_end_of_the_block(whose):
    go = threading.Event()
    other = threading.Thread(target=go.wait)
    other.start()  # before the block: its mask is open, as those of XLA's threads are
    hears = threading.main_thread() if whose == "this thread" else other
    steps = []
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the end of the block is what raises
            with interrupts_held():
                signal.pthread_kill(hears.ident, signal.SIGINT)
                time.sleep(0.05)  # Python looks for signals between instructions
                steps.append("within")
            steps.append("after")
    finally:
        go.set()
        other.join()
    assert steps == ["within"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_program_that_ignores_it_still_does():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_held():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_spawned_worker_is_deaf_from_its_first_instruction_and_its_programs_are_not():
    with interrupts_held(), multiprocessing.get_context("spawn").Pool(1, initializer=ignore_interrupts) as pool:
        os.kill(pool._pool[0].pid, signal.SIGINT)  # while it imports
        assert pool.apply(blocked_in_a_new_process) is False
