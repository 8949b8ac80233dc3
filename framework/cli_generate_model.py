"""`maypole generate --model DIR`: answers of a checkpoint to a file of prompts, which can be stopped and continued."""

import argparse
import contextlib
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from framework.answers import AnswersFile
from framework.cli_generate_options import check_options, model_parser, prompts_of, settings_of
from framework.cli_paths import as_text
from framework.cli_progress import TokenProgress
from framework.cli_values import in_options, parse_bytes, template_values
from framework.errors import UserError
from framework.prompts import Prompt

if TYPE_CHECKING:
    from framework.generation import Job

__all__ = ["model_command"]


def model_command(argv: Sequence[str]) -> int:
    """Print the answers, or write them to a file that the same command continues."""
    parser = model_parser()
    if "-h" in argv or "--help" in argv:
        parser.print_help()
        return 0
    options = parser.parse_args(argv)
    check_options(options)
    prompts = prompts_of(options)
    print(f"maypole generate --model {options.model}, {len(prompts):,} prompt(s)", file=sys.stderr, flush=True)
    if options.out is None:
        _print_answers(_job(options, prompts), prompts)
        return 0
    settings = settings_of(options)
    try:
        with (
            _sigterm_interrupts(),
            AnswersFile(options.out, prompts, settings, overwrite=options.overwrite) as answers,
        ):
            _write_answers(options, prompts, answers)
    except KeyboardInterrupt as error:
        again = shlex.join(["maypole", "generate", *(word for word in argv if word != "--overwrite")])
        print(f"\nStopped. To continue: {again}", file=sys.stderr)
        return 143 if isinstance(error, _Terminated) else 130
    print(as_text(options.out))
    return 0


def _write_answers(options: argparse.Namespace, prompts: Sequence[Prompt], answers: AnswersFile) -> None:
    done = answers.done
    if answers.cut_bytes:
        print(f"{options.out}: the last line was cut off in the middle and is made again", file=sys.stderr)
    if done:
        print(f"{options.out}: {len(done):,} of {len(prompts):,} are there", file=sys.stderr, flush=True)
    left = [prompt for prompt in prompts if prompt.line not in done]
    if left:
        job = _job(options, prompts)
        samples = options.samples
        with TokenProgress("answers", total=len(prompts) * samples, done=len(done) * samples) as progress:
            for answer in job.run(
                left, on_round=lambda count, tokens: progress.update(len(done) * samples + count, tokens)
            ):
                answers.add(answer.prompt, answer.responses, answer.generation)
        _say_speed(job, progress.seconds)
    answers.finish()


def _print_answers(job: "Job", prompts: Sequence[Prompt]) -> None:
    """In the order of the prompts, each as soon as those before it are finished."""
    found: dict[int, Sequence[str]] = {}
    order = iter(prompts)
    following = next(order, None)
    with TokenProgress("answers", total=len(prompts) * job.samples, bar=False) as progress:
        for answer in job.run(prompts, on_round=progress.update):
            found[answer.prompt.line] = answer.responses
            while following is not None and following.line in found:
                print(f"> {following.shown()}")
                for response in found.pop(following.line):
                    print(f"{response}\n", flush=True)
                following = next(order, None)
    _say_speed(job, progress.seconds)


def _say_speed(job: "Job", seconds: float) -> None:
    print(
        f"{job.finished:,} answers, {job.tokens:,} tokens in {seconds:.1f} s: {job.tokens / max(seconds, 1e-9):,.0f} tokens/s",
        file=sys.stderr,
    )


def _job(options: argparse.Namespace, prompts: Sequence[Prompt]) -> "Job":
    """The model, read, and all prompts as tokens."""
    from framework.cli_run import prepare_jax

    prepare_jax()
    from framework.generation import Job
    from framework.inference.source import open_checkpoint
    from framework.inference.types import Request

    began = time.monotonic()
    checkpoint = open_checkpoint(
        options.model,
        dtype=options.dtype,
        chat_template=options.chat_template,
        template_values=template_values(options.template_value),
    )
    count = f"{checkpoint.parameters / 1e6:,.1f} M parameters, {checkpoint.dtype}"
    print(f"{count}, read in {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    request = Request(
        id=0,
        prompt=(),
        samples=options.samples,
        max_tokens=options.max_tokens,
        min_tokens=options.min_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        stop=tuple(options.stop),
        top_logprobs=options.logprobs or 0,
    )
    try:
        return Job(
            checkpoint,
            prompts,
            request,
            seed=options.seed,
            source=str(options.prompts or "--prompt"),
            slots=options.slots,
            max_length=options.max_length,
            layout=options.layout,
            cache_bytes=None if options.cache_bytes is None else parse_bytes(options.cache_bytes, "--cache-bytes"),
            logprobs=options.logprobs is not None,
        )
    except UserError as error:
        raise UserError(in_options(str(error))) from error


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends the command as Ctrl-C does."""


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
