"""Freed memory stays with this process, so that a compiled step does not pay for the same pages again at every call.

XLA on a CPU allocates the temporaries of a program at each call and frees them after it. glibc gives such large blocks
straight back to the system, and the next call faults every page in again: a training step of a small decoder spent a third
of its time so (`benchmarks/allocator.py`). Accelerators have allocators of their own.
"""

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

# <malloc.h> of glibc
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tell glibc to serve large blocks from one heap that never shrinks. Call it before threads start.

    Returns False, and changes nothing, without glibc or when the user has set `MALLOC_*` variables of it.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 64 * 2**20), (_M_ARENA_MAX, 1))
    return all(mallopt(option, value) == 1 for option, value in settings)
