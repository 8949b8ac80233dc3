"""How a reward function gets into a worker, and how a worker starts without running the user's script again."""

import functools
import inspect
import multiprocessing.context
import multiprocessing.popen_spawn_posix
import multiprocessing.spawn
import multiprocessing.synchronize
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import cloudpickle

__all__ = ["SpawnWithoutMain", "call_problem", "pickle_function"]


def pickle_function(function: Callable[..., Any]) -> bytes:
    """Bytes of a function that a fresh process can load: a lambda, one from a notebook, or one from a file run by path."""
    owner = function
    while isinstance(owner, functools.partial):
        owner = owner.func
    name = getattr(owner, "__module__", None) or type(owner).__module__
    module = sys.modules.get(name)
    by_value = module is not None and name != "__main__" and not _importable(name)  # cloudpickle knows about __main__
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(function)
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


def call_problem(function: Callable[..., Any]) -> str:
    """Why function(sample, response) cannot work, or ""."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins do not tell
        return ""
    try:
        signature.bind(None, "")
    except TypeError as error:
        return f"{getattr(function, '__name__', function)}{signature}: {error}"
    return ""


def _importable(name: str) -> bool:
    """Whether a fresh process would find the module. importlib.util.find_spec would say yes to anything already loaded."""
    top = name.partition(".")[0]
    return any(finder.find_spec(top, None) is not None for finder in sys.meta_path)


_launch_lock = threading.Lock()


class _Popen(multiprocessing.popen_spawn_posix.Popen):
    """Starts a process that neither imports `__main__` nor ever sees Ctrl-C."""

    def _launch(self, process_obj: Any) -> None:
        # A spawned process imports the main module again. For a script without an `if __name__ == "__main__"` guard that
        # means running the experiment in the worker, and for the command line it means importing jax. Functions travel by
        # value here, so nothing needs it.
        prepare = multiprocessing.spawn.get_preparation_data

        def without_main(name: str) -> dict[str, Any]:
            return {key: value for key, value in prepare(name).items() if not key.startswith("init_main")}

        with _launch_lock:
            # The child inherits the blocked signal, so that Ctrl-C cannot hit it even while it starts.
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            multiprocessing.spawn.get_preparation_data = without_main
            try:
                super()._launch(process_obj)  # pyright: ignore[reportAttributeAccessIssue]
            finally:
                multiprocessing.spawn.get_preparation_data = prepare
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class _Process(multiprocessing.context.SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # the name multiprocessing looks up
        return _Popen(process_obj)


class SpawnWithoutMain(multiprocessing.context.SpawnContext):
    """A multiprocessing context: fresh processes (forking is unsafe once jax has threads), and no import of `__main__`."""

    Process = _Process

    def __init__(self) -> None:
        super().__init__()
        self._locks: list[multiprocessing.synchronize.RLock] = []

    def RLock(self) -> multiprocessing.synchronize.RLock:
        # A lock's name goes with its last reference, and pebble drops its own before it ends the workers: one that is still
        # starting would not find it and print a traceback. With the name there, it finds its pipe closed and leaves quietly.
        lock = super().RLock()
        self._locks.append(lock)
        return lock
