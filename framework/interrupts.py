"""Ctrl-C and worker processes: a terminal sends it to all of them, and one that is just starting would die of it, loudly."""

import contextlib
import signal
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
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """For a worker: Ctrl-C is its parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
