"""What README and docs show is what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_readme_shows_the_example_file_as_it_is():
    assert (ROOT / "docs/examples/mine.py").read_text() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_relative_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_the_table_has_all_29_papers_once():
    rows = re.findall(r"^\| .+ \| (\d{4}\.\d{5}) \| .+ \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows)) == 29


@pytest.mark.parametrize("name", ["mine", "own_loss"])
def test_the_examples_are_valid_experiments(name):
    from framework.config import load_experiment

    config = load_experiment(str(ROOT / f"docs/examples/{name}.py") + ":config").config
    config.validate()
