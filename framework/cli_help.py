"""`maypole run EXPERIMENT --help`: every field of the config with its type, its value and what the source says about it."""

import argparse
import ast
import dataclasses
import inspect
import textwrap

from framework.config_text import format_value, to_json
from framework.overrides import Field, config_fields, describe_type

__all__ = ["RUN_OPTIONS", "field_docs", "print_fields"]

RUN_OPTIONS = (  # taken by the command itself
    *("name", "dir", "overwrite", "or_resume", "traceback"),
    *("coordinator", "processes", "process_id", "distributed", "join_timeout", "peer_timeout"),
)


def print_fields(config: object, command: str, parser: argparse.ArgumentParser) -> None:
    """Print the command's own options, then the fields of the config, one group a nested config."""
    from rich.console import Console  # here and not above: the first line of a run should not wait for it
    from rich.text import Text

    parser.usage = f"{command} [--name NAME] [--dir DIR] [--overwrite] [--field.sub value ...]"
    parser.description, parser.epilog = _summary(type(config)), None
    parser.print_help()
    console = Console(highlight=False, soft_wrap=True)
    for group, fields in _groups(config).items():
        console.print(Text(f"\n{group or 'fields'}", style="bold"))
        for field in fields:
            console.print(Text(f"  --{field.path}  {_kind(field)}  now {format_value(to_json(field.value))}"))
            if doc := _doc(field):
                console.print(Text(textwrap.indent(textwrap.fill(doc, 100), " " * 6), style="dim"))


def _groups(config: object) -> dict[str, list[Field]]:
    """Fields by the config they are in, those of the experiment itself first."""
    groups: dict[str, list[Field]] = {"": []}
    for field in config_fields(config):
        if field.path not in RUN_OPTIONS:
            groups.setdefault(field.path.rpartition(".")[0], []).append(field)
    return groups


def _kind(field: Field) -> str:
    return f"[{describe_type(field.hint)}]" if field.hint is not None else "[fixed: change it in a config file]"


def _summary(cls: type) -> str:
    doc = inspect.cleandoc(cls.__doc__ or "")
    return "" if doc.startswith(f"{cls.__name__}(") else doc  # a dataclass without docstring gets its signature


def _doc(field: Field) -> str:
    return field_docs(field.owner).get(field.path.rpartition(".")[2], "") if field.owner else ""


def field_docs(cls: type) -> dict[str, str]:
    """What the source says about the fields of a dataclass: a string below the field, or a comment at the end of its line."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            docs |= _own_docs(base)
    return docs


def _own_docs(cls: type) -> dict[str, str]:
    try:
        lines, _ = inspect.getsourcelines(cls)
        source = textwrap.dedent("".join(lines))
        body = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        return {}  # defined in a notebook cell or by exec
    docs: dict[str, str] = {}
    split = source.splitlines()
    nodes = body.body if isinstance(body, ast.ClassDef) else []
    for node, after in zip(nodes, [*nodes[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        comment = split[(node.end_lineno or 1) - 1][node.end_col_offset or 0 :].strip()
        below = after.value if isinstance(after, ast.Expr) else None
        if isinstance(below, ast.Constant) and isinstance(below.value, str):
            docs[node.target.id] = " ".join(below.value.split())
        elif comment.startswith("#"):
            docs[node.target.id] = comment.lstrip("# ")
    return docs
