"""`fit`: the training loop every stage runs. Read it top to bottom; everything else in this file is small."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Protocol, TypeVar

from framework.checkpoint import Checkpoints
from framework.console import Console
from framework.distributed import agree_on_signal
from framework.errors import UserError
from framework.metrics import MetricLogger

State = TypeVar("State")
Metrics = Mapping[str, float]

# A step that makes one of these NaN or infinite has broken the state.
_MUST_BE_FINITE = ("loss/total", "grad/norm", "update/norm", "param/norm")


class Interrupted(Exception):
    """A signal stopped the run after a whole step, and the state was saved."""

    def __init__(self, message: str, step: int, signum: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.step = step  # finished steps, the step of the checkpoint
        self.signum = signum  # exit with 128 + signum, as shells expect


class NonFiniteLoss(UserError):
    """The loss or a norm became NaN or infinite; the broken state was not saved."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step  # the step that broke, counted from 1


class Named(Protocol):
    @property
    def name(self) -> str: ...


def fit(
    *,
    state: State,
    steps: int,
    step_fn: Callable[[State, int], tuple[State, Metrics]],
    stage: str | Named,
    checkpoints: Checkpoints,
    logger: MetricLogger,
    console: Console,
    evaluate: Callable[[State, int], Metrics] | None = None,
    evaluate_every: int = 0,
    checkpoint_every: int = 0,
    more_follows: bool = False,
) -> State:
    """Train until `steps` steps are done, starting from the newest checkpoint if there is one.

    `state` is the initial state; its shapes, dtypes and shardings are also what a checkpoint is restored to.
    `step_fn(state, i)` does step i = 0, 1, ...; `evaluate(state, n)` looks at the state after n steps. Both must
    be functions of their arguments alone: then a run that was killed ends with the bits of one that was not.
    Evaluates before the first step, each `evaluate_every` steps (0: never in between) and at the end. Saves
    each `checkpoint_every` steps (0: never in between), at the end, and when a signal stops the run. A signal in the last
    step stops nothing, unless `more_follows`: other stages, that should not begin.

    On many hosts every process makes the same call. A signal to one of them stops all of them after the same step.
    """
    name = stage if isinstance(stage, str) else stage.name

    # --- continue where the last attempt stopped ---
    restored = checkpoints.restore_latest(state)
    done = 0
    if restored is not None:
        done, state, _ = restored
    logger.resume(done if restored is not None else None)

    def evaluated(finished: int) -> dict[str, float]:
        if evaluate is None:
            return {}
        began = time.monotonic()
        with console.status(f"evaluating after step {finished}", one_off=False):
            return dict(evaluate(state, finished)) | {"time/eval_s": time.monotonic() - began}

    with console.stage(name, steps, start=done), _stop_signals() as stop, checkpoints:
        # --- before the first step ---
        if restored is None and evaluate is not None:
            metrics = evaluated(0)
            logger.log(0, metrics)
            console.step(0, metrics)
        if done < steps and (signum := agree_on_signal(stop.signum)) is not None:
            raise _interrupted(signum, name, done, steps, checkpoints)

        for index in range(done, steps):
            finished, last = index + 1, index + 1 == steps

            # --- one step ---
            state, step_metrics = step_fn(state, index)
            metrics = dict(step_metrics)
            if broken := [key for key in _MUST_BE_FINITE if not math.isfinite(metrics.get(key, 0.0))]:
                logger.log(finished, metrics)
                raise _non_finite(broken[0], metrics[broken[0]], name, finished, checkpoints)

            # --- evaluation and metrics: the line is on disk before the checkpoint that lets it be skipped ---
            if last or (evaluate_every and finished % evaluate_every == 0):
                metrics |= evaluated(finished)
            logger.log(finished, metrics)
            console.step(finished, metrics)

            # --- checkpoint, and the only place where a signal ends the run ---
            signum = agree_on_signal(stop.signum)
            if last or signum is not None or (checkpoint_every and finished % checkpoint_every == 0):
                logger.sync()
                checkpoints.save(finished, state, {"stage": name, "steps": steps})
            if signum is not None and (more_follows or not last):
                checkpoints.wait()
                raise _interrupted(signum, name, finished, steps, checkpoints)
    return state


class _Stop:
    signum: int | None = None  # the first stop signal received


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """SIGINT and SIGTERM set a flag once; the second one raises KeyboardInterrupt where the program stands."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python allows handlers in the main thread only
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.signum is not None:
            raise KeyboardInterrupt
        stop.signum = signum
        # os.write: a handler may run in the middle of a print, whose lock it must not take.
        text = (
            f"\n{signal.Signals(signum).name}: finishing this step, then saving. Press Ctrl-C again to stop at once.\n"
        )
        with contextlib.suppress(OSError):
            os.write(2, text.encode())

    previous = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in previous.items():
            signal.signal(
                signum, signal.SIG_DFL if handler is None else handler
            )  # None: set by a library outside of Python


def _interrupted(signum: int, name: str, step: int, steps: int, checkpoints: Checkpoints) -> Interrupted:
    saved = f"saved in {checkpoints.folder(step)}" if step in checkpoints.steps() else "nothing to save yet"
    return Interrupted(
        f"{signal.Signals(signum).name} stopped stage {name!r} after step {step} of {steps}; {saved}.",
        step,
        signum,
    )


def _non_finite(key: str, value: float, name: str, step: int, checkpoints: Checkpoints) -> NonFiniteLoss:
    checkpoints.wait()
    good = checkpoints.steps()
    last_good = f"The last good checkpoint is {checkpoints.folder(good[-1])}" if good else "There is no checkpoint yet"
    return NonFiniteLoss(
        f"{key} is {value} at step {step} of stage {name!r}; the state was not saved. {last_good}. "
        "The same config would give the same numbers again: lower the learning rate or grad_clip, or set "
        "jax.config.update('jax_debug_nans', True) to find the operation.",
        step,
    )
