"""`maypole import` and `maypole export`: folders to and fro, runs, and mistakes."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from framework.cli import main
from framework.cli_values import parse_bytes
from framework.config import load_experiment
from framework.errors import UserError
from framework.rundir import RunDir
from models.decoder import DecoderConfig, Pretrained, save_hf
from models.safetensors_io import read_header

TOY = Path(__file__).parent / "fixtures" / "toy_experiment.py"
MINE = f"""
import dataclasses, sys
sys.path.insert(0, {str(TOY.parent)!r})
from toy_experiment import Toy

@dataclasses.dataclass(frozen=True, kw_only=True)
class Exporting(Toy):
    def export(self, stage, folder, *, dtype, shard_size):
        folder.mkdir()
        (folder / "call").write_text(f"{{stage.name}} {{dtype}} {{shard_size}}")

config = Exporting()
plain = Toy()
"""


@pytest.fixture
def hf(tmp_path) -> Path:
    config = DecoderConfig(vocab_size=96, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=48)
    folder = save_hf(config.build(jax.random.key(0)), tmp_path / "hf")
    (folder / "tokenizer.json").write_text("{}")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"eos_token_id": 7}))
    return folder


def test_import_and_export_give_back_the_same_file_tokenizer_and_end_token(hf, tmp_path, capsys):
    native, back = tmp_path / "native", tmp_path / "back"
    assert main(["import", str(hf), str(native)]) == 0
    assert main(["export", str(native), str(back)]) == 0
    assert (back / "model.safetensors").read_bytes() == (hf / "model.safetensors").read_bytes()
    assert (back / "tokenizer.json").read_text() == "{}"
    assert json.loads((back / "config.json").read_text())["eos_token_id"] == 7
    assert f"{back}: 0.0 M parameters" in capsys.readouterr().out


def test_dtype_and_shard_size_reach_the_files(hf, tmp_path):
    assert main(["import", str(hf), str(tmp_path / "native"), "--dtype", "float32"]) == 0
    assert Pretrained(path=str(tmp_path / "native")).load()["embedding"].dtype == np.float32
    words = ["export", str(tmp_path / "native"), str(tmp_path / "back"), "--dtype", "bfloat16", "--shard-size", "20KB"]
    assert main(words) == 0
    files = sorted((tmp_path / "back").glob("*.safetensors"))
    assert len(files) > 1
    assert {stored.dtype for file in files for stored in read_header(file).values()} == {"BF16"}
    a, b = (Pretrained(path=str(path)).load() for path in (hf, tmp_path / "back"))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)
    assert isinstance(a, nnx.State)


@pytest.fixture
def run(tmp_path) -> RunDir:
    (tmp_path / "mine.py").write_text(MINE)
    loaded = load_experiment(f"{tmp_path}/mine.py:config")
    run = RunDir.create(tmp_path / "run", loaded.config, loaded.source)
    loaded.config.run(run)
    return run


def test_export_of_a_run_asks_the_experiment_for_the_stage(run, tmp_path):
    assert main(["export", str(run.path), str(tmp_path / "a"), "--stage", "clipped", "--shard-size", "2GB"]) == 0
    assert (tmp_path / "a/call").read_text() == "clipped bfloat16 2000000000"
    assert main(["export", str(run.path), str(tmp_path / "b"), "--dtype", "float32"]) == 0
    assert (tmp_path / "b/call").read_text() == "kl-cov float32 5000000000"


def test_an_experiment_without_export_says_what_it_lacks(run, tmp_path, capsys):
    file = run.path / "config.json"
    file.write_text(file.read_text().replace("mine.py:config", "mine.py:plain"))
    assert main(["export", str(run.path), str(tmp_path / "a")]) == 2
    assert "a Toy, cannot export its model: it has no method export(" in capsys.readouterr().err


def test_mistakes_say_what_to_type(hf, run, tmp_path, capsys):
    native, full = tmp_path / "native", tmp_path / "full"
    main(["import", str(hf), str(native)])
    full.mkdir()
    (full / "notes").touch()
    for words, message in (
        (
            ["import", str(tmp_path / "none/at/all"), str(tmp_path / "x")],
            "is not there. Give the folder of a checkpoint",
        ),
        (
            ["import", str(native), str(tmp_path / "x")],
            f"native folder already. To go back: maypole export {native} OUT",
        ),
        (["import", str(hf), str(full)], "already exists and is not empty"),
        (["export", str(native), str(full)], "already exists and is not empty"),
        (["export", str(run.path), str(full)], "already exists and is not empty"),
        (["export", str(hf), str(tmp_path / "x")], "is in Hugging Face format already"),
        (["export", str(native), str(tmp_path / "x"), "--stage", "a"], "has no stages. Leave --stage out"),
        (
            ["export", str(run.path), str(tmp_path / "x"), "--stage", "a"],
            "has no stage 'a'. It has: warm_start, clipped",
        ),
        (["export", str(tmp_path / "nothing"), str(tmp_path / "x")], "There is no native folder or run"),
        (["export", str(native), str(tmp_path / "x"), "--shard-size", "many"], "Type for example --shard-size 2GiB"),
    ):
        capsys.readouterr()
        assert main(words) == 2, words
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_sizes_are_read_with_their_units():
    assert [parse_bytes(t, "--shard-size") for t in ("5GB", "1.5 mb", "2GiB", "7")] == [
        5 * 10**9,
        1_500_000,
        2 * 2**30,
        7,
    ]
    with pytest.raises(UserError):
        parse_bytes("0GB", "--shard-size")
