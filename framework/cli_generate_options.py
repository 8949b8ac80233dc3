"""Options of `maypole generate --model`: the parser, what cannot work, and which of them decide the answers."""

import argparse
import importlib
from pathlib import Path

from framework.answers import ANSWER_KEYS
from framework.cli_paths import check_file
from framework.cli_values import parse_bytes, template_values
from framework.config_text import Json
from framework.errors import UserError
from framework.fingerprint import fingerprint
from framework.prompts import Prompt, read_prompts

__all__ = ["check_options", "model_parser", "prompts_of", "settings_of"]


def model_parser() -> argparse.ArgumentParser:
    """Options of `maypole generate --model`."""
    parser = argparse.ArgumentParser(
        prog="maypole generate --model",
        usage="maypole generate --model DIR (--prompts FILE | --prompt TEXT ...) [--out FILE] [options]",
        description="Generate text from a checkpoint. With --out every answer is written as soon as it is finished, and the same "
        "command continues after any stop: what is there is kept, and the file is the same as without the stop (log-probabilities "
        "to rounding).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="DIR",
        help="a folder with a checkpoint, Hugging Face or native, or the id of a downloaded one",
    )
    what = parser.add_argument_group("prompts and answers")
    what.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help='JSONL, each line an object with "prompt" or "question" (a text), "messages" (a conversation, written with the chat '
        'template; beside them "tools", a list of objects for it) or "tokens" (ids, read as they are); other keys are carried to '
        "the output",
    )
    what.add_argument("--prompt", nargs="+", default=[], metavar="TEXT", help="one or more prompts, in quotes")
    what.add_argument("--out", type=Path, metavar="FILE", help="JSONL to write (default: print the answers)")
    what.add_argument(
        "--overwrite", action="store_true", help="begin again; an --out that is there is first moved aside"
    )
    what.add_argument("--chat-template", metavar="FILE", help="a Jinja template instead of the tokenizer's own")
    what.add_argument(
        "--template-value",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="variables for the template, such as enable_thinking=false",
    )
    _add_sampling(parser.add_argument_group("sampling"))
    _add_engine(parser.add_argument_group("engine (changes speed and memory, not the answers)"))
    return parser


def _add_sampling(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--samples", type=int, default=1, metavar="N", help="answers for each prompt (default: 1)")
    group.add_argument(
        "--max-tokens", type=int, default=256, metavar="N", help="longest answer in tokens (default: 256)"
    )
    group.add_argument(
        "--min-tokens", type=int, default=0, metavar="N", help="no answer ends before so many tokens (default: 0)"
    )
    group.add_argument(
        "--temperature", type=float, default=1.0, metavar="X", help="0 takes the likeliest token (default: 1.0)"
    )
    group.add_argument(
        "--top-k", type=int, default=0, metavar="N", help="only the N likeliest tokens; 0: all (default: 0)"
    )
    group.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="X",
        help="only the likeliest tokens with this share of the probability, 0 to 1 (default: 1.0)",
    )
    group.add_argument(
        "--min-p",
        type=float,
        default=0.0,
        metavar="X",
        help="only tokens at least this share as likely as the likeliest, 0 to 1 (default: 0.0)",
    )
    group.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end an answer before this text; may be given several times; in bash a line end is $'\\n'",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the same seed and line give the same answer, whatever else is in the file (default: 0)",
    )
    group.add_argument(
        "--logprobs",
        type=int,
        metavar="N",
        help="also write ids and log-probabilities (nats) of the tokens, and of the N likeliest at each place; N may be 0",
    )
    group.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help="longest sequence in tokens, prompt and answer; longer answers are cut (default: what prompts and --max-tokens "
        "take, at most what the model was made for)",
    )
    group.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="type of weights and sums (default: float32 on a CPU, else that of the files)",
    )


def _add_engine(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--slots", type=int, default=32, metavar="N", help="answers worked on at once (default: 32)")
    group.add_argument(
        "--layout",
        choices=("slots", "paged"),
        default="slots",
        help="how the cache lies in memory: a full row a slot, or pages as sequences grow (default: slots)",
    )
    group.add_argument(
        "--cache-bytes",
        metavar="SIZE",
        help="memory for keys and values, such as 2GiB, 512MiB or 500MB (default: as much as slots and length take)",
    )


def check_options(options: argparse.Namespace) -> None:
    """A UserError for mistakes that are known before anything is read."""
    least = {"samples": 1, "max_tokens": 1, "min_tokens": 0, "temperature": 0, "top_k": 0, "logprobs": 0, "slots": 1}
    for name, low in {**least, "max_length": 2}.items():
        value = getattr(options, name)
        if value is not None and not low <= value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} {value} must be at least {low}.")
    if options.min_tokens > options.max_tokens:
        raise UserError(f"--min-tokens {options.min_tokens} is more than --max-tokens {options.max_tokens}. Use fewer.")
    if not 0 < options.top_p <= 1:
        raise UserError(f"--top-p {options.top_p} must lie above 0 and not above 1; 1 is all tokens.")
    if not 0 <= options.min_p <= 1:
        raise UserError(f"--min-p {options.min_p} must lie between 0 and 1; 0 is all tokens.")
    if "" in options.stop:
        raise UserError("--stop has an empty text, which ends every answer at once. Leave it out.")
    if options.cache_bytes is not None:
        parse_bytes(options.cache_bytes, "--cache-bytes")
    template_values(options.template_value)
    if options.out is not None:
        check_file(options.out, "--out", "answers.jsonl")
        if options.prompts is not None and options.out.resolve() == options.prompts.resolve():
            raise UserError(f"--out {options.out} is the file of the prompts. Give another one.")
    elif options.overwrite:
        raise UserError("--overwrite is for --out FILE. Leave it out, or give --out.")


def prompts_of(options: argparse.Namespace) -> list[Prompt]:
    """The lines of --prompts, or the texts of --prompt."""
    if options.prompts is not None and options.prompt:
        raise UserError("Give --prompts FILE or --prompt TEXT, not both.")
    if options.prompts is not None:
        return read_prompts(options.prompts, reserved=() if options.out is None else ANSWER_KEYS)
    if not options.prompt:
        raise UserError('There is nothing to answer. Give --prompt "TEXT" or --prompts file.jsonl.')
    return [Prompt(line, {"prompt": text}, "prompt") for line, text in enumerate(options.prompt, start=1)]


def settings_of(options: argparse.Namespace) -> dict[str, Json]:
    """What decides an answer besides its prompt: the same settings continue a file."""
    folder = Path(options.model).expanduser()
    if not folder.is_dir():  # the id of a downloaded model; models are asked by name, as experiments are
        from framework.cli_run import prepare_jax

        prepare_jax()
        folder = importlib.import_module("models.decoder.pretrained").Pretrained(path=options.model).folder()
        name = str(options.model)
    else:
        name = folder.resolve().name
    template = options.chat_template
    if template is not None:
        template = importlib.import_module("models.messages").read_template(template)
    names = (
        "samples",
        "max_tokens",
        "min_tokens",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "stop",
        "seed",
        "logprobs",
    )
    found: dict[str, Json] = {
        "model": f"{name}@{fingerprint(folder)}",
        **{name: getattr(options, name) for name in (*names, "max_length", "dtype")},
        "chat_template": template,
        "template_values": template_values(options.template_value) or None,  # pyright: ignore[reportAssignmentType]
    }
    return {key: value for key, value in found.items() if value is not None}
