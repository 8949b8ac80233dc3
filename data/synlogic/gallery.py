"""The gallery: one instance of every task at two levels, as a person would want to see it, with an answer to unfold.

    python -m data.synlogic.gallery docs/synlogic-gallery.md

The page is a function of the code alone, so a test can demand that the committed one is up to date.
"""

import argparse
from pathlib import Path
from typing import Any

from data.synlogic import TASKS
from data.synlogic.base import Task

__all__ = ["page"]

LEVELS = ("easy", "hard")
SEED = 7
_COMMAND = "python -m data.synlogic.gallery docs/synlogic-gallery.md"
_LONGEST = 60  # lines of a picture; what is longer is cut, and says so


def page() -> str:
    """The whole page as Markdown."""
    links = " · ".join(f"[{name}](#{name})" for name in TASKS)
    head = (
        f"# The {len(TASKS)} SynLogic tasks\n\nOne instance of every task at two levels (seed {SEED}), with an answer to unfold. "
        f"Written by `{_COMMAND}`; see any other one with `maypole data show TASK --level LEVEL --seed N`.\n\n{links}\n"
    )
    return "\n".join([head, *(_section(task) for task in TASKS.values())])


def _section(task: Task[Any]) -> str:
    parts = [f"## {task.name}\n"]
    for level in LEVELS:
        sample = task.generate(SEED, task.levels[level], "english")
        measured = f"{task.difficulty(sample):.6g}"
        parts.append(f"**{level}** ({task.measure}: {measured})\n")
        parts.append(_cut(task.show(sample)) + "\n")
        solved = _cut(task.show(sample, solved=True))
        parts.append(f"<details><summary>An answer</summary>\n\n{solved}\n\n</details>\n")
    tiny = task.generate(SEED, task.levels["tiny"], "compact")
    parts.append(f"For tiny models: `{_inline(tiny.question)}` → `{_inline(task.solve(tiny))}`\n")
    return "\n".join(parts)


def _inline(text: str) -> str:
    return text.replace("`", "'").replace("\n", "⏎")


def _cut(text: str) -> str:
    lines = text.splitlines()
    if len(lines) <= _LONGEST:
        return text
    fenced = sum(line.startswith("```") for line in lines[:_LONGEST]) % 2
    more = f"({len(lines) - _LONGEST} more lines)"
    return "\n".join([*lines[:_LONGEST], *(["```"] if fenced else []), "", more])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="PAGE", help="Markdown file to write")
    options = parser.parse_args()
    options.out.write_text(page(), encoding="utf-8")
    print(f"{options.out}: {len(TASKS)} tasks")


if __name__ == "__main__":
    main()
