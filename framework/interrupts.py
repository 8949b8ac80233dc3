"""Ctrl-C and worker processes: a terminal sends it to all of them, and one that is just starting would die of it, loudly."""

import contextlib
import signal
import threading
from collections.abc import Generator
from multiprocessing import resource_tracker

__all__ = ["ignore_interrupts", "interrupts_held"]


@contextlib.contextmanager
def interrupts_held() -> Generator[None, None, None]:
    """Ctrl-C waits until the end of the block; processes and threads that are started in it never see it.

    Who starts workers must end them. A worker calls `ignore_interrupts` once it runs, so that programs it starts hear Ctrl-C again.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # started within the block, it would lift the mask when it is done
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _heard_at_the_end():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _heard_at_the_end() -> Generator[None, None, None]:
    """A mask is one thread's. The system hands Ctrl-C to any other, XLA's for one, and Python's handler then runs in this one."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield  # handlers run in the main thread; and if it is ignored, programs started here are to ignore it too
        return
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if heard:
            signal.raise_signal(signal.SIGINT)  # it is still masked: the caller lifts that


def ignore_interrupts() -> None:
    """For a worker: Ctrl-C is its parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
