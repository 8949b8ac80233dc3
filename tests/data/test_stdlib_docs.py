"""The docstrings of the standard library as conversations: real, the same every time, nothing on both sides."""

import pytest

from data import stdlib_docs
from data.packing import packed_stream
from data.stdlib_docs import StdlibDocs
from data.tokenise import tokenise
from framework.errors import UserError
from models.tokenizer import CHAT_TAGS, ByteTokenizer


@pytest.fixture(scope="module")
def docs():
    said: list[str] = []
    conversations = StdlibDocs().build(said.append)
    assert said == [f"standard library: {conversations}"]
    return conversations


def answers(conversations) -> list[str]:
    return [conversation.messages[1]["content"] for conversation in conversations]


def test_thousands_of_real_pairs_and_a_tenth_of_them_held_out(docs):
    assert len(docs.train) > 3000
    assert len(docs.heldout) / len(docs.train) == pytest.approx(1 / 9, rel=0.3)
    pairs = {c.messages[0]["content"]: c.messages[1]["content"] for c in (*docs.train, *docs.heldout)}
    assert pairs["What does genericpath.getsize(filename) do?"] == "Return the size of a file, reported by os.stat()."
    assert all(
        len(question) <= 70 + len("What does  do?") and 0 < len(answer) <= 100 for question, answer in pairs.items()
    )


def test_no_answer_and_no_question_is_on_both_sides_or_twice(docs):
    everything = (*docs.train, *docs.heldout)
    for texts in (answers(everything), [c.messages[0]["content"] for c in everything]):
        assert len(set(texts)) == len(texts)


def test_building_twice_gives_the_same_and_another_length_moves_nothing_across(docs):
    shorter = StdlibDocs(max_answer=60).build(lambda text: None)
    assert 100 < len(shorter.heldout) < len(docs.heldout)
    assert not set(answers(shorter.heldout)) & set(answers(docs.train))
    assert not set(answers(shorter.train)) & set(answers(docs.heldout))


def test_what_was_left_out_is_counted(docs):
    assert set(docs.dropped) == {"too long", "not of plain English letters", "with an answer seen before"}
    assert "left out" in str(docs)


def test_they_fill_rows_of_a_small_model(docs):
    tokenizer = ByteTokenizer(tags=CHAT_TAGS).build()
    stats = packed_stream(tokenise(docs.train, tokenizer, say=lambda text: None), rows=16, length=256, seed=0).stats
    assert stats.used == len(docs.train)
    assert stats.truncated == 0
    assert stats.efficiency > 0.9


def test_settings_that_leave_nothing_and_a_python_without_sources_are_errors(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"heldout_every=1 leaves nothing"):
        StdlibDocs(heldout_every=1).build()
    monkeypatch.setattr(stdlib_docs.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(UserError, match="holds only 0 documented functions"):
        StdlibDocs().build()
