"""Text of the standard library and token files as windows: real, the same every time, nothing on both sides."""

import re
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from data.stdlib_files import stdlib_modules
from data.stdlib_text import StdlibText
from data.token_files import TokenFiles, write_token_file
from data.token_windows import TokenWindows
from framework.errors import UserError
from models.tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer(tags=()).build()


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library of two hundred modules, each with its own number in every line."""
    for i in range(200):
        folder = tmp_path / ("inner" if i % 2 else ".")
        folder.mkdir(exist_ok=True)
        (folder / f"m{i:03d}.py").write_text(f"value_{i:03d} = {i:03d}\n" * 20)
    (tmp_path / "test").mkdir()
    (tmp_path / "test/left_out.py").write_text("left_out = 1\n" * 100)
    (tmp_path / "copy.py").write_text("value_000 = 000\n" * 20)  # equal to m000
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    (tmp_path / "empty.py").write_text("\n")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    return tmp_path


SMALL = StdlibText(heldout_every=4, heldout_batches=2)


def build(source: StdlibText | TokenFiles = SMALL, *, rows=4, length=64, seed=0):
    return source.build(TOKENIZER, rows=rows, length=length, seed=seed, say=lambda text: None)


def texts(batch) -> list[str]:
    return [TOKENIZER.decode(row[row != TOKENIZER.eos_id].tolist()) for row in batch.tokens]


def numbers(batches) -> set[str]:
    """Which modules these batches show."""
    return {found for batch in batches for text in texts(batch) for found in re.findall(r"value_(\d{3})", text)}


def test_a_batch_is_windows_of_the_text_every_token_learnt_but_the_first(library):
    batch = build()[3]
    assert batch.tokens.shape == (4, 64)
    assert batch.tokens.dtype == batch.positions.dtype == batch.segment_ids.dtype == np.int32
    assert all(re.search(r"value_(\d{3}) = \1\n", text) for text in texts(batch))
    assert (batch.positions == np.arange(64)).all()
    assert (batch.segment_ids == 1).all()
    assert (batch.mask[:, 0] == 0).all()
    assert (batch.mask[:, 1:] == 1).all()


def test_a_batch_is_a_function_of_seed_and_step(library):
    first, again, other = build(), build(), build(seed=1)
    assert np.array_equal(first[7].tokens, again[7].tokens)
    assert not np.array_equal(first[7].tokens, first[8].tokens)
    assert not np.array_equal(first[7].tokens, other[7].tokens)
    assert all(
        np.array_equal(a.tokens, b.tokens) for a, b in zip(first.heldout, other.heldout, strict=True)
    )  # whatever the seed
    with pytest.raises(IndexError):
        first[-1]


def test_no_file_is_on_both_sides_and_copies_are_read_once(library):
    data = build(StdlibText(heldout_every=4, heldout_batches=20))
    train, heldout = numbers(data[step] for step in range(300)), numbers(data.heldout)
    assert not train & heldout
    assert len(train) > 100
    assert 20 < len(heldout) < 80
    stream = data._train
    assert np.sum(stream == TOKENIZER.eos_id) == len(
        train
    )  # one end a file: neither the copy nor the empty one has its own
    assert len(stream) == len(train) * (20 * len("value_000 = 000\n") + 1)


def test_heldout_windows_do_not_overlap_and_reach_to_the_end():
    stream = np.arange(1000)
    data = TokenWindows(stream, stream, rows=3, length=64, seed=0, heldout_batches=5)
    starts = np.array([batch.tokens[:, 0] for batch in data.heldout]).ravel()
    assert len(starts) == 15
    assert np.diff(starts).min() >= 64
    assert starts[-1] + 64 > 1000 - 66 - 64
    assert all((np.diff(batch.tokens) == 1).all() for batch in data.heldout)


def test_every_place_of_the_stream_can_be_drawn():
    data = TokenWindows(np.arange(9), np.arange(9), rows=8, length=8, seed=0, heldout_batches=0)
    assert {int(batch.tokens[row, 0]) for batch in (data[i] for i in range(4)) for row in range(8)} == {0, 1}
    assert data.epoch_steps == pytest.approx(9 / 64)
    assert data.metrics()["data/learnt_frac"] == 1 - 1 / 8
    assert data.prompts(3) == []


def test_this_python_has_millions_of_bytes_and_the_tests_are_left_out():
    root = Path(sysconfig.get_paths()["stdlib"])
    modules = stdlib_modules(root)
    assert sum(path.stat().st_size for path in modules) > 5e6
    assert root / "ast.py" in modules
    assert not any({"test", "site-packages"} & set(path.relative_to(root).parts) for path in modules)


def test_what_cannot_be_read_says_what_to_type(library):
    with pytest.raises(UserError, match=r"heldout_every=1 leaves nothing"):
        build(StdlibText(heldout_every=1))
    with pytest.raises(UserError, match=r"do not fit in [\d,]+ held-out tokens\. Use heldout_batches=\d+ or less"):
        build(StdlibText(heldout_batches=10_000))
    with pytest.raises(UserError, match=r"too few for a window of length=1000000"):
        build(length=1_000_000)
    with pytest.raises(UserError, match=r"heldout_batches=-1 cannot be negative"):
        build(StdlibText(heldout_batches=-1))
    for path in [*library.glob("m*.py"), *library.glob("inner/*.py")]:
        path.unlink()
    with pytest.raises(UserError, match=r"holds only \d+ modules"):
        build()


def test_token_files_give_back_what_was_written(tmp_path):
    texts = [f"text number {i}. " * 20 for i in range(50)]
    paths = [str(tmp_path / name) for name in ("train.bin", "val.bin")]
    assert write_token_file(paths[0], TOKENIZER, texts) == sum(map(len, texts)) + 50
    write_token_file(paths[1], TOKENIZER, iter(texts))
    said = []
    source = TokenFiles(train=paths[0], heldout=paths[1], heldout_batches=2)
    data = source.build(TOKENIZER, rows=4, length=32, seed=0, say=said.append)
    assert TOKENIZER.decode(data.heldout[0].tokens[0].tolist()) == texts[0][:32]
    assert data[0].tokens.dtype == np.int32
    assert "tokens" in said[0]
    with pytest.raises(UserError, match=r"is there already"):
        write_token_file(paths[0], TOKENIZER, texts)


def test_a_token_file_that_is_missing_cut_off_or_of_another_tokenizer_is_an_error(tmp_path):
    good, cut, large = (tmp_path / name for name in ("good.bin", "cut.bin", "large.bin"))
    write_token_file(good, TOKENIZER, ["abc" * 100])
    cut.write_bytes(good.read_bytes()[:-1])
    large.write_bytes(np.full(100, 40_000, "<u2").tobytes())
    for path, said in (
        (tmp_path / "none.bin", "is no file"),
        (cut, "no row of 16-bit ids"),
        (large, "has the id 40000"),
    ):
        with pytest.raises(UserError, match=rf"data\.heldout=.*{said}"):
            build(TokenFiles(train=str(good), heldout=str(path)))
