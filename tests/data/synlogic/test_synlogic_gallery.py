"""The gallery shows every task, is whole Markdown, and the committed page is what the code makes now."""

import re
from pathlib import Path

import pytest

from data.synlogic import TASKS
from data.synlogic.gallery import LEVELS, page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "synlogic-gallery.md"


@pytest.fixture(scope="module")
def text():
    return page()


@pytest.fixture(scope="module")
def sections(text):
    return dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))


def blocks_and_rest(markdown):
    """(lines inside of blocks, lines outside); fails for a block that does not end."""
    inside, outside, fence = [], [], ""
    for line in markdown.splitlines():
        ticks = re.match(r"`{3,}", line)
        if not fence and ticks:
            fence = ticks[0]
        elif fence and line == fence:
            fence = ""
        else:
            (inside if fence else outside).append(line)
    assert not fence, "a block does not end"
    return inside, outside


def test_the_committed_page_is_up_to_date(text):
    assert PAGE.read_text(encoding="utf-8") == text, "python -m data.synlogic.gallery docs/synlogic-gallery.md"


def test_every_task_is_shown_at_both_levels_with_its_question_and_answers(text, sections):
    assert list(sections) == list(TASKS)
    for name, section in sections.items():
        assert f"[{name}](#{name})" in text
        assert [section.count(f"**{level}**, ") for level in LEVELS] == [1, 1]
        assert section.count("<summary>An answer</summary>") == len(LEVELS)
        assert section.count("<summary>The question</summary>") == 1
        assert section.count("For tiny models: `") == 1


def test_blocks_and_folds_are_closed_and_lines_of_blocks_fit(sections):
    for name, section in sections.items():
        inside, outside = blocks_and_rest(section)
        assert max(map(len, inside), default=0) <= 110, name
        depth = 0
        for line in outside:
            depth += line.startswith("<details>") - (line == "</details>")
            assert depth in (0, 1), name
        assert depth == 0, name


def test_tables_have_as_many_cells_in_every_row(sections):
    for name, section in sections.items():
        _, outside = blocks_and_rest(section)
        for block in re.findall(r"(?:^\|.*\n?)+", "\n".join(outside), re.M):
            cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(cells) == 1, (name, block)


def test_nothing_is_cut(sections):
    """An ARC grid of the hard level is folded, and its question and answer are there to the end."""
    task = TASKS["arc_agi"]
    sample = task.generate(7, task.levels["hard"], "english")
    assert task.show(sample) in sections["arc_agi"]
    assert task.show(sample, solved=True) in sections["arc_agi"]
    assert not any("more lines)" in section for section in sections.values())
