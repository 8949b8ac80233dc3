"""What a record depends on besides the seed: the version of the package, the code of its task, the parameters of its level."""

import ast
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
        for name in _imported_by(todo.pop()):
            if name not in found and name in sys.modules:
                found[name] = sys.modules[name]
                todo.append(sys.modules[name])
    return list(found.values())


@functools.cache
def _imported_by(module: ModuleType) -> tuple[str, ...]:
    """What may be modules of this package among the names of its imports: a word list tells nobody where it came from."""
    names = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.startswith("data.synlogic."))
