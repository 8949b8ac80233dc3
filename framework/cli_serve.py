"""`maypole serve`: a model behind an HTTP server that clients of the OpenAI API can use."""

import argparse
import contextlib
import importlib.util
import ipaddress
import math
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from framework.cli_paths import as_text
from framework.cli_values import in_options, parse_bytes, template_values
from framework.errors import UserError
from framework.experiment import Exportable
from framework.rundir import RunDir

if TYPE_CHECKING:
    from framework.inference.engine import Engine
    from framework.inference.source import Checkpoint

__all__ = ["serve_command"]

_KEY = "MAYPOLE_API_KEY"
_LONGEST = 4096  # tokens; more costs memory that few requests use, so it has to be asked for
_TOP_LOGPROBS = 20  # as many as OpenAI gives


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maypole serve",
        description="Serve a model over HTTP as the OpenAI API does: /v1/completions, /v1/chat/completions, /v1/models, /health "
        "and /metrics. Stops with Ctrl-C or SIGTERM.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "run", nargs="?", type=Path, metavar="RUN", help="a run folder such as runs/NAME; or give --model"
    )
    parser.add_argument("--stage", help="which stage of the run (default: the one that started last)")
    parser.add_argument(
        "--model",
        metavar="DIR",
        help="a folder with a checkpoint, Hugging Face or native, or the id of a downloaded one",
    )
    parser.add_argument(
        "--served-name", nargs="+", metavar="NAME", help="what requests call the model (default: the folder's name)"
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="type of weights and sums (default: float32 on a CPU, else that of the files)",
    )
    parser.add_argument(
        "--chat-template", metavar="FILE", help="a Jinja template for chats instead of the tokenizer's own"
    )
    parser.add_argument(
        "--template-value",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="variables for the template, such as enable_thinking=false",
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 is every network (default: 127.0.0.1, this machine only)",
    )
    network.add_argument("--port", type=int, default=8000, help="port to listen at; 0 is any free one (default: 8000)")
    network.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"refuse requests to /v1 without this key; better in the variable {_KEY}, where other users do not see it",
    )
    network.add_argument(
        "--max-queue",
        type=int,
        default=256,
        metavar="N",
        help="sequences that may wait for a slot, more get status 429 (default: 256)",
    )
    network.add_argument(
        "--grace",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="time to finish what is under way when stopped (default: 30)",
    )
    network.add_argument("--access-log", action="store_true", help="print a line for each request")
    engine = parser.add_argument_group("engine")
    engine.add_argument("--slots", type=int, default=32, metavar="N", help="sequences worked on at once (default: 32)")
    engine.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help=f"longest sequence in tokens, prompt and answer (default: what the model takes, at most {_LONGEST})",
    )
    engine.add_argument(
        "--decode-steps",
        type=int,
        metavar="N",
        help="tokens between two looks at the queue; fewer are smoother streams, more are quicker (default: the engine's)",
    )
    engine.add_argument(
        "--layout",
        choices=("slots", "paged"),
        default="slots",
        help="how the cache lies in memory: a full row a slot, or pages as sequences grow (default: slots)",
    )
    engine.add_argument(
        "--cache-bytes",
        metavar="SIZE",
        help="memory for keys and values, such as 2GiB or 500MB (default: as much as slots and length take)",
    )
    engine.add_argument(
        "--warmup",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compile everything before the first request (default: yes)",
    )
    return parser


def serve_command(argv: Sequence[str]) -> int:
    """Serve until told to stop. Exit code 0 after Ctrl-C or SIGTERM, 1 when the engine failed."""
    options = _parser().parse_args(argv)
    _check(options)
    _check_installed()
    source = options.model or str(options.run)
    print(f"maypole serve {source}", file=sys.stderr, flush=True)
    from framework.cli_run import prepare_jax
    from framework.serve.server import bind

    listener = bind(options.host, options.port)  # a port that is taken is known before the model is read
    with contextlib.closing(listener):
        prepare_jax()
        with _folder(options) as folder:
            checkpoint = _open(options, folder)
        return _serve(options, listener, checkpoint, options.served_name or [_default_name(options)])


def _serve(options: argparse.Namespace, listener: socket.socket, checkpoint: "Checkpoint", names: list[str]) -> int:
    from framework.inference.source import said_when_memory_ends
    from framework.serve.metrics import Metrics
    from framework.serve.sampling import Limits
    from framework.serve.server import Server
    from framework.serve.service import Service
    from framework.serve.worker import Worker

    max_length = options.max_length or min(checkpoint.max_position or _LONGEST, _LONGEST)
    top_logprobs = min(_TOP_LOGPROBS, checkpoint.vocab_size)
    try:
        engine = checkpoint.engine(
            slots=options.slots,
            max_length=max_length,
            decode_steps=options.decode_steps,
            layout=options.layout,
            cache_bytes=None if options.cache_bytes is None else parse_bytes(options.cache_bytes, "--cache-bytes"),
            max_queue=options.max_queue,
            top_logprobs=top_logprobs,
        )
    except UserError as error:
        raise UserError(in_options(str(error))) from error
    if options.warmup:
        with said_when_memory_ends():
            _warm_up(engine)
    metrics = Metrics()
    service = Service(
        worker=Worker(engine, metrics),
        tokenizer=checkpoint.tokenizer,
        limits=Limits(
            max_length=max_length,
            vocab_size=engine.vocab_size,
            top_logprobs=top_logprobs,
            max_queue=options.max_queue,
        ),
        metrics=metrics,
        names=names,
        created=int(time.time()),
        api_key=_api_key(options),
    )
    host, port = listener.getsockname()[:2]
    slots = engine.stats.slots
    if service.api_key is None and not _is_loopback(host):
        print(
            f"Anybody who reaches {host} can use this server: set {_KEY} to a key that clients must send.",
            file=sys.stderr,
        )

    def ready() -> None:
        address = f"[{host}]" if ":" in host else host
        print(f"{as_text(names[0])}: {slots} slots of {max_length} tokens at http://{address}:{port}/v1", flush=True)

    server = Server(service, grace=options.grace, access_log=options.access_log, ready=ready)
    code = 0 if server.answer(listener) else 1
    if service.worker.busy:  # the usual exit would crash in the compilation, or whatever it is, that goes on
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _check(options: argparse.Namespace) -> None:
    """Mistakes that are known before anything slow is imported."""
    if (options.model is None) == (options.run is None):
        raise UserError("Give one model: maypole serve --model DIR, or a run: maypole serve runs/NAME")
    if options.stage is not None and options.run is None:
        raise UserError(
            "--stage is for a run: maypole serve runs/NAME --stage STAGE. A folder given with --model has no stages."
        )
    for name, least in (("slots", 1), ("max_length", 2), ("decode_steps", 1), ("max_queue", 0), ("grace", 0)):
        value = getattr(options, name)
        if value is not None and not value >= least:
            raise UserError(f"--{name.replace('_', '-')} {value} must be at least {least}.")
    if math.isinf(options.grace):
        raise UserError(f"--grace {options.grace} must be a number of seconds. Type for example --grace 600.")
    if not 0 <= options.port <= 65535:
        raise UserError(f"--port {options.port} must lie between 0 and 65535.")
    if options.cache_bytes is not None:
        parse_bytes(options.cache_bytes, "--cache-bytes")
    template_values(options.template_value)
    _api_key(options)


def _check_installed() -> None:
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"maypole serve needs {' and '.join(missing)}, which an extra installs: pip install 'maypole[serve]'"
        )


def _api_key(options: argparse.Namespace) -> str | None:
    key = options.api_key if options.api_key is not None else os.environ.get(_KEY)
    if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
        where = "--api-key" if options.api_key is not None else _KEY
        raise UserError(
            f"{where} must be letters, digits and signs without blanks, which is what a header can carry. Give such a key."
        )
    return key


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


def _default_name(options: argparse.Namespace) -> str:
    """The folder's name, or the id of a downloaded model as it was typed."""
    path = Path(options.model or options.run).expanduser()
    return path.resolve().name if path.is_dir() else str(options.model)


@contextlib.contextmanager
def _folder(options: argparse.Namespace) -> Iterator[str]:
    """Where the checkpoint lies: a stage of a run is written to a temporary folder, and read from there."""
    if options.model is not None:
        yield options.model
        return
    run = RunDir.open(options.run)
    stages = {stage.name: stage for stage in run.stages()}
    if not stages:
        raise UserError(f"{run.path} has no stage with a checkpoint yet. To continue it: maypole resume {run.path}")
    if options.stage is not None and options.stage not in stages:
        raise UserError(f"{run.path} has no stage {options.stage!r}. It has: {', '.join(stages)}.")
    stage = stages[options.stage] if options.stage is not None else list(stages.values())[-1]
    config = run.rebuild()
    if not isinstance(config, Exportable):
        raise UserError(
            f"The experiment of {run.path}, a {type(config).__name__}, cannot export its model: it has no method "
            "export(stage, folder, *, dtype, shard_size), see framework.experiment.Exportable."
        )
    with tempfile.TemporaryDirectory(prefix="maypole-serve-") as folder:
        out = Path(folder) / "model"
        config.export(stage, out, dtype=options.dtype or "float32", shard_size=5_000_000_000)
        yield str(out)


def _open(options: argparse.Namespace, folder: str) -> "Checkpoint":
    from framework.inference.source import open_checkpoint

    began = time.monotonic()
    checkpoint = open_checkpoint(
        folder,
        dtype=options.dtype,
        chat_template=options.chat_template,
        template_values=template_values(options.template_value),
    )
    count = f"{checkpoint.parameters / 1e6:,.1f} M parameters, {checkpoint.dtype}"
    print(f"{count}, read in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return checkpoint


def _warm_up(engine: "Engine") -> None:
    """Compile, and say how far it is: the first time takes minutes for a large model, later ones seconds."""
    began = time.monotonic()
    shown = sys.stderr.isatty()

    def progress(done: int, of: int) -> None:
        if shown:
            print(f"\rcompiling {done}/{of}", end="\n" if done == of else "", file=sys.stderr, flush=True)

    engine.warmup(progress)
    print(f"compiled in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
