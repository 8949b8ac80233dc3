"""What a record depends on besides the seed: the version of the package, the code of its task, the parameters of its level."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import json
import sys
from types import ModuleType
from typing import Any

from data import synlogic

__all__ = ["code_digest", "package_version", "parameters"]


def package_version() -> str:
    try:
        return importlib.metadata.version("maypole")
    except importlib.metadata.PackageNotFoundError:  # run from a copy of the sources
        return "unknown"


def parameters(task: str, level: str) -> dict[str, Any]:
    """The parameters of a level, as JSON types."""
    return json.loads(json.dumps(dataclasses.asdict(synlogic.TASKS[task].levels[level]), default=str))


@functools.cache
def code_digest(task: str) -> str:
    """A digest of the source of a task and of all modules of this package that it uses."""
    digest = hashlib.sha256()
    for module in sorted(_used_by(sys.modules[type(synlogic.TASKS[task]).__module__]), key=lambda used: used.__name__):
        digest.update(f"{module.__name__}\0{inspect.getsource(module)}\0".encode())
    return digest.hexdigest()[:16]


def _used_by(module: ModuleType) -> list[ModuleType]:
    found = {module.__name__: module}
    todo = [module]
    while todo:
        for value in vars(todo.pop()).values():
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(name, str) and name.startswith("data.synlogic.") and name not in found:
                found[name] = sys.modules[name]
                todo.append(sys.modules[name])
    return list(found.values())
