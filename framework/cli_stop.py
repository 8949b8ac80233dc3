"""How the commands that train end early: what they say, and the exit code."""

import sys

from framework.distributed import is_main

__all__ = ["stop_code"]


def stop_code(error: BaseException, *, again: str, after_nan: str) -> int | None:
    """Say why the work stopped and what to type, and return the exit code; None, and not a word, for any other error.

    again: the line after Ctrl-C or SIGTERM. after_nan: the line after a loss that is not finite, where doing the same again
    would end the same way.
    """
    if isinstance(error, KeyboardInterrupt):
        print(f"\nStopped.\n{again}", file=sys.stderr)
        return 130
    if _loop_error(error, "Interrupted"):
        _say_once(f"{error}\n{again}")
        return 128 + int(getattr(error, "signum", 2))
    if _loop_error(error, "NonFiniteLoss"):
        _say_once(f"error: {error}\n{after_nan}")
        return 1
    return None


def _say_once(text: str) -> None:
    """These ends come to every process of a run on many hosts at the same step; one says it."""
    if is_main():
        print(text, file=sys.stderr)


def _loop_error(error: BaseException, name: str) -> bool:
    """Whether `framework.loop` raised it; that module imports jax, so it is asked for only where it is loaded."""
    kind = getattr(sys.modules.get("framework.loop"), name, None)
    return kind is not None and isinstance(error, kind)
