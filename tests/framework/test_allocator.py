"""Kept memory is not faulted in again; another C library or the user's own settings are left alone."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, sys
from framework.allocator import keep_freed_memory

changed = keep_freed_memory() if sys.argv[1] == "keep" else None
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def use(size):
    block = libc.malloc(ctypes.c_size_t(size))
    ctypes.memset(block, 1, size)
    libc.free(block)

use(100 * 2**20)  # as large as the temporaries of a small training step
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use(100 * 2**20)
print(changed, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GLIBC = sys.platform == "linux" and "glibc" in os.confstr("CS_GNU_LIBC_VERSION") if hasattr(os, "confstr") else False


def faults(how, **variables):
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
    out = subprocess.run([sys.executable, "-c", FAULTS, how], env=env, capture_output=True, text=True, check=True)
    changed, count = out.stdout.split()
    return changed, int(count)


@pytest.mark.skipif(not GLIBC, reason="only glibc has these settings")
def test_a_block_that_is_used_again_costs_no_page_faults():
    _, default = faults("default")
    changed, kept = faults("keep")
    assert changed == "True"
    assert default > 1000  # else there is nothing to save
    assert kept < default / 20


def test_settings_of_the_user_win():
    assert faults("keep", MALLOC_ARENA_MAX="2")[0] == "False"
