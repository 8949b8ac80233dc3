"""What runs inside a reward worker: one function, one sample at a time, each with its own deadline. Imports no jax."""

import dataclasses
import faulthandler
import numbers
import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import Any, Literal, NoReturn

from framework.interrupts import ignore_interrupts

__all__ = ["Reply", "run_chunk", "start"]

Reply = tuple[Literal["ok", "error", "timeout"], float, str]  # kind, reward, message


class _DeadlineError(BaseException):
    """Raised in the reward function. Not an Exception, so that its `except Exception` does not swallow it."""


@dataclasses.dataclass
class _Worker:
    reward_fn: Callable[..., Any] | None = None
    load_error: str = ""
    armed: bool = False  # an alarm that comes late must not hit our own code


_worker = _Worker()


def _on_alarm(*_: object) -> None:
    if _worker.armed:
        raise _DeadlineError


def start(payload: bytes) -> None:
    """Runs once in a new worker. `payload` is the pickled reward function."""
    # Pebble's own handler is Python code, which a function stuck in C never lets run; the default action always works.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ignore_interrupts()
    os.environ["JAX_PLATFORMS"] = "cpu"  # a reward that uses jax must not take the accelerator from the trainer
    _never_exit_silently()
    try:
        _worker.reward_fn = pickle.loads(payload)
    except (
        BaseException
    ):  # told to the trainer with the first reply: a worker that dies here would only be started again
        _worker.load_error = traceback.format_exc(limit=-5)


def _never_exit_silently() -> None:
    """os._exit(0) in a reward function looks like a regular end to pebble, which then waits for the answer's time limit."""
    exit_now, me = os._exit, os.getpid()

    def exit_with_a_code(status: int) -> NoReturn:
        exit_now(status or (1 if os.getpid() == me else 0))  # processes that the function forks keep their own code

    os._exit = exit_with_a_code


def run_chunk(payload: bytes, timeout_s: float, watchdog_s: float | None) -> list[Reply] | str:
    """Rewards of pickled [(sample, response), ...] in order; a str says why the reward function could not be loaded.

    After timeout_s a sample is interrupted by a signal, which stops Python code, sleeps and regular expressions. One that is
    stuck inside C ends the whole worker after watchdog_s (None: the caller kills it).
    """
    if _worker.load_error:
        return _worker.load_error
    replies = []
    try:
        for sample, response in pickle.loads(payload):
            if watchdog_s is not None:
                # A C thread that needs no GIL; each call replaces the one before.
                faulthandler.dump_traceback_later(watchdog_s, exit=True, file=_devnull())
            replies.append(_run_one(sample, response, timeout_s))
    finally:
        if watchdog_s is not None:
            faulthandler.cancel_dump_traceback_later()
    return replies


def _run_one(sample: Any, response: str, timeout_s: float) -> Reply:
    assert _worker.reward_fn is not None
    # Set for every sample: verifiers with a time limit of their own install their handler and cancel our timer.
    signal.signal(signal.SIGALRM, _on_alarm)
    try:
        try:
            _worker.armed = True
            # The alarm repeats, in case the first is lost in a bare `except:` or in a `__del__`.
            signal.setitimer(signal.ITIMER_REAL, timeout_s, 0.05)
            value = _worker.reward_fn(sample, response)
            return _as_reply(value)
        finally:
            _worker.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    except _DeadlineError:
        signal.setitimer(signal.ITIMER_REAL, 0.0)  # it may have come inside the `finally` above
        _worker.armed = False
        return "timeout", 0.0, f"no reward within {timeout_s} s"
    except BaseException as error:  # SystemExit too: a reward function must not end its worker
        frames = error.__traceback__.tb_next if error.__traceback__ else None  # without this file's own frame
        return "error", 0.0, "".join(traceback.format_exception(type(error), error, frames, limit=-8))[-4000:]


def _as_reply(value: Any) -> Reply:
    """A number, or an array of no dimensions, is a reward; anything else is a mistake in the function."""
    if isinstance(value, numbers.Real) or getattr(value, "ndim", None) == 0:
        return "ok", float(value), ""
    return (
        "error",
        0.0,
        f"the reward function returned {value!r:.80} ({type(value).__name__}); it must return one number",
    )


def _devnull() -> int:
    """The watchdog insists on a place for its traceback."""
    global _null
    if _null is None:
        _null = os.open(os.devnull, os.O_WRONLY)
    return _null


_null: int | None = None
