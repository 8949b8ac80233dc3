"""`maypole import`, `maypole export` and `maypole quantise`: checkpoints in Hugging Face format to ours, back, and in 4 bits."""

import argparse
import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from framework.cli_paths import check_folder
from framework.cli_values import parse_bytes
from framework.errors import UserError
from framework.experiment import Exportable
from framework.rundir import RunDir

__all__ = ["export_command", "import_command", "quantise_command"]

_BAR_FROM = 200_000_000  # bytes; smaller ones are done before a bar can be read


def import_command(argv: Sequence[str]) -> int:
    """Hugging Face folder -> native folder."""
    parser = argparse.ArgumentParser(
        prog="maypole import",
        description="Turn a checkpoint in Hugging Face format (Llama, Mistral, Qwen2 / Qwen2.5, Qwen3) into a native folder, which "
        "opens quicker on many devices. An experiment reads both: model=Pretrained(path=...).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source", metavar="SRC", help="a folder with config.json and safetensors, or the id of a downloaded model"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write; must not exist, or be empty")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="type to keep (default: that of the files)")
    options = parser.parse_args(argv)
    check_folder(options.out, "OUT")
    print(f"maypole import {options.source} -> {options.out}", flush=True)  # before anything slow is imported
    models = _models()
    began = time.monotonic()
    with _Bar() as bar:
        config = models.import_model(options.source, options.out, dtype=options.dtype, progress=bar)
    _done(config, options.out, began)
    return 0


def export_command(argv: Sequence[str]) -> int:
    """Native folder, or a stage of a run, -> Hugging Face folder."""
    parser = argparse.ArgumentParser(
        prog="maypole export",
        description="Write a checkpoint in Hugging Face format, which transformers, vLLM and others open.",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="a native folder, or a run folder such as runs/NAME")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write; must not exist, or be empty")
    parser.add_argument("--stage", help="which stage of a run (default: the one that started last)")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="type to save (default: that of a native folder; bfloat16 for a run)",
    )
    parser.add_argument(
        "--shard-size", default="5GB", metavar="SIZE", help="another file after so many bytes (default: 5GB)"
    )
    options = parser.parse_args(argv)
    shard_size = parse_bytes(options.shard_size, "--shard-size")
    check_folder(options.out, "OUT")
    native = (options.source / "model.json").is_file()
    if (options.source / "quantized.json").is_file():
        raise UserError(
            f"{options.source} is quantised, and other programs do not read its layout. Export the model it was made of."
        )
    if native and options.stage is not None:
        raise UserError(f"{options.source} is a native folder and has no stages. Leave --stage out.")
    if not native and any((options.source / f"model.safetensors{end}").is_file() for end in ("", ".index.json")):
        raise UserError(
            f"{options.source} is in Hugging Face format already: copy it. To read it: maypole import SRC OUT"
        )
    if not native:
        return _export_run(options.source, options.stage, options.out, options.dtype or "bfloat16", shard_size)
    print(f"maypole export {options.source} -> {options.out}", flush=True)
    models = _models()
    began = time.monotonic()
    with _Bar() as bar:
        config = models.export_model(
            options.source, options.out, dtype=options.dtype, shard_size=shard_size, progress=bar
        )
    _done(config, options.out, began)
    return 0


def _export_run(
    source: Path, stage_name: str | None, out: Path, dtype: Literal["bfloat16", "float32"], shard_size: int
) -> int:
    if not source.is_dir():
        raise UserError(f"There is no native folder or run at {source}. A run is named by its folder: runs/NAME")
    run = RunDir.open(source)
    stages = {stage.name: stage for stage in run.stages()}
    if not stages:
        raise UserError(f"{run.path} has no stage with a checkpoint yet. To continue it: maypole resume {run.path}")
    if stage_name is not None and stage_name not in stages:
        raise UserError(f"{run.path} has no stage {stage_name!r}. It has: {', '.join(stages)}.")
    stage = stages[stage_name] if stage_name is not None else list(stages.values())[-1]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists and is not empty. Give a folder that is not there yet.")
    print(f"maypole export {run.path}, stage {stage.name} -> {out}", flush=True)
    _prepare()
    config = run.rebuild()
    if not isinstance(config, Exportable):
        raise UserError(
            f"The experiment of {run.path}, a {type(config).__name__}, cannot export its model: it has no method "
            "export(stage, folder, *, dtype, shard_size), see framework.experiment.Exportable."
        )
    began = time.monotonic()
    config.export(stage, out, dtype=dtype, shard_size=shard_size)
    _done(None, out, began)
    return 0


def quantise_command(argv: Sequence[str]) -> int:
    """Hugging Face or native folder -> folder of a quantised model."""
    parser = argparse.ArgumentParser(
        prog="maypole quantise",
        description="Write a checkpoint with the matrices of its blocks in 4 bits, which maypole generate --model OUT and maypole "
        "serve --model OUT take; print its perplexity on a text before and after, and keep it in OUT/quantized.json.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source", metavar="MODEL", help="a folder in Hugging Face or native format, or the id of a downloaded model"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write; must not exist, or be empty")
    parser.add_argument(
        "--format",
        choices=("mxfp4", "nvfp4"),
        default="mxfp4",
        help="mxfp4: 4.25 bits a weight, groups of 32 share a power of two (default); nvfp4: 4.5 bits, groups of 16 share an "
        "8-bit float",
    )
    parser.add_argument(
        "--rotate", action="store_true", help="turn each group by a Hadamard transform first, which spreads outliers"
    )
    parser.add_argument(
        "--activations",
        action="store_true",
        help="round what is multiplied with the weights to the same format too, each token on its own",
    )
    parser.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="a text in UTF-8 to measure perplexity on, one the model has not seen (default: sources of Python's library)",
    )
    parser.add_argument(
        "--tokens", type=int, default=8192, help="tokens of it to read; 0 measures nothing (default: 8192)"
    )
    parser.add_argument("--window", type=int, default=512, help="tokens that are read together (default: 512)")
    options = parser.parse_args(argv)
    check_folder(options.out, "OUT")
    if options.tokens < 0 or options.tokens == 1:
        raise UserError(
            f"--tokens {options.tokens} leaves nothing to predict. Use 0 for no measurement, or 2 and more."
        )
    if options.window < 2:
        raise UserError(f"--window {options.window} leaves nothing to predict. Use 2 tokens or more, such as 512.")
    print(f"maypole quantise {options.source} -> {options.out}, {options.format}", flush=True)
    _prepare()
    ptq = importlib.import_module("models.ptq")
    began = time.monotonic()
    with contextlib.ExitStack() as bars:

        def bar(name: str) -> Callable[[int, int], None]:
            bars.close()  # the one before
            return bars.enter_context(_Bar(name))

        config = ptq.quantise_folder(
            options.source,
            options.out,
            ptq.PTQ(format=options.format, rotate=options.rotate, activations=options.activations),
            text=options.text,
            tokens=options.tokens,
            window=options.window,
            progress=bar,
            say=lambda line: print(line, flush=True),
        )
    _done(config, options.out, began)
    return 0


def _prepare() -> None:
    from framework.cli_run import prepare_jax

    prepare_jax()


def _models() -> ModuleType:
    # By name, as experiments are: framework must not know the model families that are built on it, and listing commands must
    # not import jax.
    _prepare()
    return importlib.import_module("models.decoder.exchange")


def _done(config: Any, out: Path, began: float) -> None:
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    count = f"{config.parameter_count() / 1e6:,.1f} M parameters, " if config is not None else ""
    print(f"{out}: {count}{size / 1e9:.2f} GB in {time.monotonic() - began:.1f} s")


class _Bar:
    """A progress bar on stderr for a checkpoint that takes a while."""

    def __init__(self, name: str = "weights") -> None:
        self._name = name
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Callable[[int, int], None]:
        return self._advance

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _advance(self, done: int, total: int) -> None:
        if total < _BAR_FROM or not sys.stderr.isatty():
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

            columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(self._name, total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done)
