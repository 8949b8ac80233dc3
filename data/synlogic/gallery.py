"""The gallery: one instance of every task at two levels, as a person would want to see it, with an answer to unfold.

    python -m data.synlogic.gallery docs/synlogic-gallery.md

The page is a function of the code alone, so a test can demand that the committed one is up to date.
"""

import argparse
import textwrap
from pathlib import Path
from typing import Any

from data.synlogic import TASKS
from data.synlogic.base import Task

__all__ = ["page"]

LEVELS = ("easy", "hard")
SEED = 7
_COMMAND = "python -m data.synlogic.gallery docs/synlogic-gallery.md"
_LONGEST = 45  # lines of a picture that stands open; a longer one is folded
_WIDEST = 110  # columns of a line in a block, which no browser wraps


def page() -> str:
    """The whole page as Markdown."""
    names = list(TASKS)
    links = [" · ".join(f"[{name}](#{name})" for name in names[first : first + 5]) for first in range(0, len(names), 5)]
    head = (
        f"# The {len(TASKS)} SynLogic tasks\n\nOne instance of every task at two levels (seed {SEED}), with the question as a "
        f"model reads it and an answer to unfold.\nWritten by `{_COMMAND}`; see any other one with "
        "`maypole data show TASK --level LEVEL --seed N`.\n\n" + " ·\n".join(links) + "\n"
    )
    return "\n".join([head, *(_section(task) for task in TASKS.values())])


def _section(task: Task[Any]) -> str:
    parts = [f"## {task.name}\n"]
    for level in LEVELS:
        sample = task.generate(SEED, task.levels[level], "english")
        parts.append(f"**{level}**, {task.measure}: {task.difficulty(sample):.6g}\n")
        picture = _wrapped(task.show(sample))
        size = len(picture.splitlines())
        parts.append(_folded(f"The instance ({size} lines)", picture) if size > _LONGEST else f"{picture}\n")
        if level == LEVELS[0]:
            parts.append(_folded("The question", _wrapped(f"````text\n{sample.question}\n````")))
        parts.append(_folded("An answer", _wrapped(task.show(sample, solved=True))))
    tiny = task.generate(SEED, task.levels["tiny"], "compact")
    parts.append(f"For tiny models: `{_inline(tiny.question)}` → `{_inline(task.solve(tiny))}`\n")
    return "\n".join(parts)


def _folded(summary: str, markdown: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{markdown}\n\n</details>\n"


def _inline(text: str) -> str:
    return text.replace("`", "'").replace("\n", "⏎")


def _wrapped(markdown: str) -> str:
    """Long lines of blocks are wrapped; those of tables and of running text a browser wraps."""
    lines: list[str] = []
    fence = ""  # what ends the block that a line is in
    for line in markdown.rstrip().splitlines():
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if len(ticks) >= 3 and not fence:
            fence = ticks
        elif fence and line == fence:
            fence = ""
        elif fence and len(line) > _WIDEST:
            indent = " " * (len(line) - len(line.lstrip()) + 4)
            wrap = textwrap.TextWrapper(
                _WIDEST, subsequent_indent=indent, replace_whitespace=False, break_on_hyphens=False
            )
            lines += wrap.wrap(line)
            continue
        lines.append(line.rstrip())
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="PAGE", help="Markdown file to write")
    options = parser.parse_args()
    options.out.write_text(page(), encoding="utf-8")
    print(f"{options.out}: {len(TASKS)} tasks")


if __name__ == "__main__":
    main()
