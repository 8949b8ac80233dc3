"""The modules of the standard library as files: what `stdlib_docs` and `stdlib_text` read."""

import os
from pathlib import Path

__all__ = ["stdlib_modules"]

# Tests, bundled packages and old copies: no library, or not of this Python.
_LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "idle_test",
    "lib2to3",
    "distutils",
    "turtledemo",
    "ensurepip",
    "site-packages",
    "dist-packages",
}


def stdlib_modules(root: Path) -> list[Path]:
    """The modules under `root`, by name. Folders left out are not entered: installed packages may have very many files."""
    found: list[Path] = []
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if name not in _LEFT_OUT]
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return sorted(found)
