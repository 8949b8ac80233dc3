"""Find an experiment by name or by file: `entropy_mechanism`, `entropy_mechanism:smoke`, `path/to/mine.py:config`.

Listing reads source files without running them, so that `maypole list` does not wait for jax.
"""

import ast
import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from framework.errors import UserError
from framework.experiment import Experiment, is_experiment

__all__ = [
    "ExperimentInfo",
    "LoadedExperiment",
    "Spec",
    "list_experiments",
    "load_experiment",
    "load_module",
    "nearest",
]

PACKAGE = "experiments"
DEFAULT_VARIANTS = ("config", "tiny")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedExperiment:
    """An experiment config and where it came from; `load_experiment(source)` gives it again."""

    config: Experiment
    module: ModuleType
    source: str
    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentInfo:
    """One line of `maypole list`."""

    name: str
    doc: str
    variants: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """A parsed spec: a paper's name or a Python file, and the variant asked for, if any."""

    target: str
    variant: str | None
    is_file: bool

    @classmethod
    def parse(cls, text: str, root: Path | None = None) -> "Spec":
        """Read `target[:variant]`; a relative file is looked for under `root`, by default the current folder."""
        target, _, variant = text.rpartition(":") if re.search(r":[A-Za-z_]\w*$", text) else (text.rstrip(":"), "", "")
        is_file = target.endswith(".py") or "/" in target or "\\" in target
        if not target:
            raise UserError(f"{text!r} names no experiment. Type: maypole list")
        target = (
            str(((root or Path.cwd()) / Path(target).expanduser()).resolve()) if is_file else target.replace("-", "_")
        )
        return cls(target=target, variant=variant or None, is_file=is_file)

    @property
    def name(self) -> str:
        """A name for run folders, known before anything is imported."""
        stem = re.sub(r"\W", "_", Path(self.target).stem) if self.is_file else self.target
        return f"{stem}-{self.variant}" if self.variant and self.variant != "config" else stem

    def check_exists(self) -> None:
        """A `UserError` that lists what there is, for a file or paper that is not there. Imports nothing heavy."""
        if self.is_file:
            _check_file(Path(self.target))
        else:
            _check_paper(self.target)


def load_experiment(spec: str, root: Path | None = None) -> LoadedExperiment:
    """Import the module a spec names and take the variant out of it."""
    parsed = Spec.parse(spec, root)
    module = load_module(parsed)
    found = {name: value for name, value in vars(module).items() if not name.startswith("_") and is_experiment(value)}
    variant = parsed.variant or next((name for name in DEFAULT_VARIANTS if name in found), None)
    if variant is None or variant not in found:
        raise UserError(_no_variant(parsed, module, found))
    return LoadedExperiment(config=found[variant], module=module, source=f"{parsed.target}:{variant}", name=parsed.name)


def _no_variant(spec: Spec, module: ModuleType, found: Iterable[str]) -> str:
    names = sorted(found)
    asked = spec.variant or " or ".join(DEFAULT_VARIANTS)
    if spec.variant and spec.variant in vars(module):
        kind = type(vars(module)[spec.variant]).__name__
        members = "name, seed, run, sections and policy"
        problem = f"{spec.variant} in {spec.target} is a {kind}, not an experiment: a dataclass with {members}."
    else:
        problem = f"{spec.target} has no experiment called {asked}."
    if not names:
        return f"{problem} It holds none at all; assign one at the top level, for example `config = MyExperiment(...)`."
    return f"{problem}{nearest(asked, names)} It has: {', '.join(names)}. Type: {spec.target}:{names[0]}"


def load_module(spec: Spec) -> ModuleType:
    """Import the module of a spec; a failing import becomes a `UserError` that shows the line."""
    spec.check_exists()
    return _load_file(Path(spec.target)) if spec.is_file else _load_paper(spec.target)


def _check_paper(name: str) -> None:
    if not re.fullmatch(r"\w+", name) or importlib.util.find_spec(f"{PACKAGE}.{name}") is None:
        names = [info.name for info in list_experiments()]
        available = f"Available: {', '.join(names) or 'none'}."
        raise UserError(
            f"There is no experiment called {name!r}.{nearest(name, names)} {available} "
            f"Your own file works as well: path/to/mine.py:config"
        )


def _load_paper(name: str) -> ModuleType:
    full = f"{PACKAGE}.{name}"
    try:
        return importlib.import_module(full)
    except Exception as error:
        raise UserError(_import_problem(full, f"{PACKAGE}/{name}", error)) from error


def _check_file(path: Path) -> None:
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        hint = nearest(path.name, beside) or f" Files there: {', '.join(beside[:8]) or 'no Python file'}."
        raise UserError(f"There is no file {path}.{hint}")
    if path.suffix != ".py":
        raise UserError(f"{path} is not a Python file. A config file ends in .py: path/to/mine.py:config")


def _load_file(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"maypole_user_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{digest}"
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # so that mine.py can import the file beside it, as `python mine.py` could
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None  # the name ends in .py
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(_import_problem(str(path), str(path), error)) from error
    return module


def _import_problem(what: str, path_part: str, error: Exception) -> str:
    """The user's own frames of the traceback: from the first one in the file on, import machinery left out."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")]
    first = next((i for i, f in enumerate(frames) if path_part in f.filename), None)
    shown = traceback.format_list(frames[first:]) if first is not None else []
    text = "".join([*shown, *traceback.format_exception_only(error)]).rstrip()
    return f"{what} could not be imported:\n{text}"


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean x?` for the names most like `name`, or an empty string."""
    close = difflib.get_close_matches(name.lower(), list(names), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def list_experiments() -> list[ExperimentInfo]:
    """Every paper in the `experiments` package, read from the source without importing it."""
    package = importlib.import_module(PACKAGE)
    infos = []
    for item in pkgutil.iter_modules(package.__path__):
        if not item.name.startswith("_"):
            file = Path(item.module_finder.path, item.name)  # pyright: ignore[reportAttributeAccessIssue]
            source = file / "__init__.py" if item.ispkg else file.with_suffix(".py")
            infos.append(_read_info(item.name, source))
    return [info for info in infos if info.variants]


def _read_info(name: str, source: Path) -> ExperimentInfo:
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        return ExperimentInfo(name=name, doc=f"cannot be read: {error}", variants=("?",))
    lines = (ast.get_docstring(tree) or "").strip().splitlines()
    return ExperimentInfo(name=name, doc=lines[0] if lines else "", variants=tuple(_variants(tree)))


def _variants(tree: ast.Module) -> list[str]:
    """Top-level names that are assigned `SomeClass(...)` under a usual name, or `replace(<one of them>, ...)`."""
    found: list[str] = []
    runnable = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and _has_run(node)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):  # a package whose __init__ passes on the variants of its files
            found += [name for a in node.names if (name := a.asname or a.name) in ("config", "tiny", "smoke", "paper")]
        target = (
            node.targets[0]
            if isinstance(node, ast.Assign)
            else node.target
            if isinstance(node, ast.AnnAssign)
            else None
        )
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(target, ast.Name) and not target.id.startswith("_") and value is not None:
            made_of = (
                {n.id for n in ast.walk(value) if isinstance(n, ast.Name)} if isinstance(value, ast.Call) else set()
            )
            callee = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
            usual = target.id in ("config", "tiny", "smoke", "paper") and isinstance(value, ast.Call | ast.Name)
            if usual or callee in runnable or (made_of & set(found) and "replace" in ast.dump(value)):
                found.append(target.id)
    return list(dict.fromkeys(found))


def _has_run(node: ast.ClassDef) -> bool:
    return any(isinstance(item, ast.FunctionDef) and item.name == "run" for item in node.body)
