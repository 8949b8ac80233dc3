"""A checkpoint answers many prompts, each as soon as there is room for it: what `maypole generate --model` runs."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from framework.errors import UserError
from framework.inference.check import check_request
from framework.inference.config import EngineConfig, Layout
from framework.inference.engine import Engine
from framework.inference.source import Checkpoint, Spoken, said_when_memory_ends
from framework.inference.types import Completion, Request, Ticket
from framework.prompts import Prompt

__all__ = ["Answer", "Job"]

_DIGITS = 6  # of a log-probability that is written


@dataclasses.dataclass(frozen=True)
class Answer:
    """All samples of a prompt: their texts, and how they came about, in JSON types."""

    prompt: Prompt
    responses: list[str]
    generation: dict[str, Any]


class Job:
    """An engine made for these prompts. The line of a prompt is the id of its request, so that an answer depends on it alone."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        prompts: Sequence[Prompt],
        request: Request,
        *,
        seed: int,
        source: str,
        slots: int = 32,
        max_length: int | None = None,
        layout: Layout = "slots",
        cache_bytes: int | None = None,
        logprobs: bool = False,
    ):
        """`prompts` are all of the file, also those that are not to be run now: the sizes of the engine follow from them.

        `request` says how each is answered; its id and prompt are not used. `logprobs`: answers carry ids and log-probabilities.
        `source` is what errors call the file. Raises UserError for prompts and settings that cannot work, before any is run.
        """
        assert request.max_tokens is not None
        self.samples = request.samples
        self.finished = 0
        """Answers (samples) so far."""
        self.tokens = 0
        """New tokens so far."""
        self._seed, self._source, self._logprobs = seed, source, logprobs
        tokens = {prompt.line: self._encode(prompt, checkpoint.tokenizer) for prompt in prompts}
        checkpoint.check_length(max_length)
        length = self._fitting_length(tokens, request.max_tokens, max_length, checkpoint.max_position)
        stops = checkpoint.tokenizer.stop_ids
        config = EngineConfig(
            slots=min(slots, len(prompts) * request.samples),
            max_length=length,
            max_new_tokens=request.max_tokens,
            layout=layout,
            cache_bytes=cache_bytes,
            stop_tokens=stops,
            max_stop_tokens=max(len(stops), 1),
            pad_token=checkpoint.tokenizer.pad_id,
            top_logprobs=request.top_logprobs,
        )
        with said_when_memory_ends():
            self._engine = Engine(checkpoint.model, config, tokenizer=Spoken(checkpoint.tokenizer))
        self._requests: dict[int, Request] = {}
        for line, ids in tokens.items():
            room = min(request.max_tokens, length - len(ids))
            own = dataclasses.replace(
                request,
                id=line,
                prompt=ids,  # pyright: ignore[reportArgumentType]
                max_tokens=room,
                min_tokens=min(request.min_tokens, room),
            )
            with _naming(line, source):
                check_request(own, config, vocab_size=self._engine.vocab_size, has_text=True)
            self._requests[line] = own

    def run(self, prompts: Sequence[Prompt], *, on_round: Callable[[int, int], None]) -> Iterator[Answer]:
        """Answers in the order they are finished. `on_round(answers, tokens)` is told after each round what there is so far.

        Raises:
            UserError: the model gave NaN or infinite logits.
        """
        engine, waiting = self._engine, iter(prompts)
        under_way: dict[Ticket, tuple[Prompt, dict[int, Completion]]] = {}
        prompt = next(waiting, None)
        while prompt is not None or under_way:
            # As many in the queue as could be seated in one round: more would only take memory.
            while prompt is not None and engine.stats.waiting < engine.stats.slots:
                ticket = engine.submit(self._requests[prompt.line], self._seed)
                under_way[ticket] = prompt, {}
                prompt = next(waiting, None)
            answers: list[Answer] = []
            wrong: UserError | None = None
            for update in engine.step():
                self.tokens += len(update.tokens)
                if update.completion is None:
                    continue
                asked, found = under_way[update.ticket]
                if update.completion.error is not None:
                    wrong = UserError(
                        f"Line {asked.line} of {self._source}: {update.completion.error} Or they are too large for their type: try "
                        "--dtype float32."
                    )
                    continue
                found[update.sample] = update.completion
                self.finished += 1
                if len(found) == self.samples:
                    del under_way[update.ticket]
                    answers.append(self._answer(asked, [found[i] for i in range(self.samples)]))
            yield from answers
            on_round(self.finished, self.tokens)
            if wrong is not None:
                raise wrong

    def _encode(self, prompt: Prompt, tokenizer: Any) -> np.ndarray:
        with _naming(prompt.line, self._source):
            ids = prompt.token_ids(tokenizer)
            if not ids:
                raise UserError("the prompt is empty. Give at least one token, for example a line end.")
        found = np.asarray(
            ids
        )  # all prompts of a large file stay in memory, so small; what does not fit is refused later
        return found.astype(np.int32) if found.dtype.kind == "i" and np.abs(found).max() < 2**31 else found

    def _fitting_length(
        self, tokens: dict[int, np.ndarray], max_tokens: int, asked: int | None, made_for: int | None
    ) -> int:
        """Tokens of the longest sequence. A prompt has to leave room for an answer."""
        line, longest = max(((line, len(ids)) for line, ids in tokens.items()), key=lambda pair: pair[1])
        needed = longest + max_tokens
        length = min(needed, asked or needed, made_for or needed)
        if longest >= length:
            limit = f"--max-length {asked}" if asked is not None else f"the model, made for {made_for} tokens,"
            fix = (
                f" or set --max-length {needed},"
                if asked is not None and (made_for is None or needed <= made_for)
                else ""
            )
            raise UserError(
                f"Line {line} of {self._source} has a prompt of {longest} tokens, and {limit} has to hold the answer too. "
                f"Shorten the prompt,{fix} or leave the line out."
            )
        return length

    def _answer(self, prompt: Prompt, completions: Sequence[Completion]) -> Answer:
        generation: dict[str, Any] = {
            "prompt_tokens": len(self._requests[prompt.line].prompt),
            "tokens": [len(completion.tokens) for completion in completions],
            "finish_reasons": [completion.finish_reason for completion in completions],
            "stops": [completion.stop for completion in completions],
        }
        if self._logprobs:
            generation["logprobs"] = [_logprobs(completion) for completion in completions]
        return Answer(prompt, [completion.text or "" for completion in completions], generation)


def _logprobs(completion: Completion) -> dict[str, Any]:
    found = {
        "ids": completion.tokens.tolist(),
        "logp": _rounded(completion.logp),
        "logp_untempered": _rounded(completion.logp_untempered),
    }
    if completion.top_tokens is not None and completion.top_logp is not None:
        found |= {"top_ids": completion.top_tokens.tolist(), "top_logp": _rounded(completion.top_logp)}
    return found


def _rounded(values: np.ndarray) -> list[Any]:
    """Lists of numbers; JSON has no infinity, so that one is null."""
    rounded = np.round(values.astype(np.float64), _DIGITS)
    numbers = rounded.astype(object)
    numbers[~np.isfinite(rounded)] = None
    return numbers.tolist()


@contextlib.contextmanager
def _naming(line: int, source: str) -> Iterator[None]:
    """Puts the line of the file in front of an error about it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"Line {line} of {source}: {error}") from error
