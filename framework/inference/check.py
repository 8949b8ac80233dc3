"""What a request may ask: an error says what was given, why it cannot work and what to type."""

from collections.abc import Sequence

import numpy as np

from framework.errors import UserError
from framework.inference.config import EngineConfig
from framework.inference.types import Request

__all__ = ["LONGEST_STOP", "check_request", "check_tokens"]

LONGEST_STOP = 4096  # characters; all that has been said is looked through for its beginning


def check_request(request: Request, config: EngineConfig, *, vocab_size: int, has_text: bool) -> int:
    """The largest number of new tokens of each sample.

    Raises:
        UserError: a prompt that is empty, too long or not made of the model's tokens; settings outside of their range.
    """
    name = f"request {request.id}"
    if not (isinstance(request.id, int | np.integer) and 0 <= request.id < 2**32):
        raise UserError(
            f"a request has id={request.id!r}, which cannot name it in the randomness. Use a whole number from 0 to "
            f"{2**32 - 1}, such as its place in the list."
        )
    if not len(request.prompt):
        raise UserError(f"{name} has an empty prompt. Give at least one token, for example a start tag.")
    if len(request.prompt) >= config.max_length:
        raise UserError(
            f"{name} has a prompt of {len(request.prompt)} tokens, but engine.max_length={config.max_length} has to hold the "
            f"continuation too. Shorten the prompt, or set engine.max_length={len(request.prompt) + config.max_new_tokens}."
        )
    check_tokens(request.prompt, name, vocab_size)
    if request.samples < 1:
        raise UserError(f"{name} asks for {request.samples} samples. Ask for at least 1.")
    limit = _check_lengths(request, name, config)
    _check_sampling(request, name, config)
    stops = {*request.stop_tokens, *(() if request.ignore_stop else config.stop_tokens)}
    if len(stops) > config.max_stop_tokens or any(not 0 <= token < vocab_size for token in request.stop_tokens):
        raise UserError(
            f"{name} has the stop tokens {sorted(stops)}; at most {config.max_stop_tokens}, from 0 to {vocab_size - 1}, can be "
            f"had. Set engine.max_stop_tokens={len(stops)}, or leave some out."
        )
    if not isinstance(request.stop, tuple) or any(not isinstance(text, str) or not text for text in request.stop):
        raise UserError(
            f'{name} has stop={request.stop!r}. Give a tuple of texts that are not empty, such as stop=("\\n\\n",).'
        )
    if request.stop and max(map(len, request.stop)) > LONGEST_STOP:
        raise UserError(
            f"{name} has a stop text of {max(map(len, request.stop)):,} characters. Use at most {LONGEST_STOP:,}."
        )
    if request.stop and not has_text:
        raise UserError(
            f"{name} has stop texts, but the engine has no tokenizer. Make it with Engine(..., tokenizer=...)."
        )
    if request.group is not None and not 0 <= request.group.token < vocab_size:
        raise UserError(
            f"{name} has group.token={request.group.token}, but the model has tokens 0 to {vocab_size - 1}."
        )
    if request.group is not None and not 1 <= request.group.count <= request.samples:
        raise UserError(
            f"{name} has group.count={request.group.count} of samples={request.samples}. Use a count from 1 to {request.samples}."
        )
    if request.group is not None and request.hold:
        raise UserError(
            f"{name} has both hold=True and a group. The samples of a group end together: leave one of them out."
        )
    return limit


def check_tokens(given: Sequence[int], name: str, vocab_size: int) -> None:
    """Raises UserError for what is not a list of the model's tokens, at least one."""
    try:
        tokens = np.asarray(given)
    except ValueError:  # a list of lists of different lengths
        tokens = np.zeros(0)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise UserError(
            f"{name} has a prompt that is not a list of whole numbers: {str(given)[:80]}. "
            f"Give token ids from 0 to {vocab_size - 1}; a tokenizer makes them from text."
        )
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        place = int(np.argmax((tokens < 0) | (tokens >= vocab_size)))
        raise UserError(
            f"{name} has token {tokens[place]} at place {place} of its prompt, but the model has tokens 0 to "
            f"{vocab_size - 1}. Use the tokenizer the model was trained with."
        )


def _check_lengths(request: Request, name: str, config: EngineConfig) -> int:
    room = config.max_length - len(request.prompt)
    if request.max_tokens is None:
        limit = min(config.max_new_tokens, room)
    else:
        limit = request.max_tokens
        if limit < 1:
            raise UserError(f"{name} asks for max_tokens={limit}. Ask for at least 1.")
        if limit > room:
            raise UserError(
                f"{name} asks for max_tokens={limit} after a prompt of {len(request.prompt)}, but engine.max_length="
                f"{config.max_length}. Ask for at most {room}, or set engine.max_length={len(request.prompt) + limit}."
            )
    if not 0 <= request.min_tokens <= limit:
        raise UserError(f"{name} has min_tokens={request.min_tokens} of at most {limit} new ones. Use 0 to {limit}.")
    return limit


def _check_sampling(request: Request, name: str, config: EngineConfig) -> None:
    if not 0 <= request.temperature <= 1e30:  # also NaN; beyond float32 from 3e38
        raise UserError(
            f"{name} has temperature={request.temperature}. Use 0 for greedy, or a positive number up to 1e30."
        )
    if request.top_k < 0:
        raise UserError(f"{name} has top_k={request.top_k}. Use 0 for all tokens, or a positive number.")
    if not 0 < request.top_p <= 1:
        raise UserError(f"{name} has top_p={request.top_p}. Use 1 for all tokens, or a fraction above 0.")
    if not 0 <= request.min_p <= 1:
        raise UserError(f"{name} has min_p={request.min_p}. Use 0 for all tokens, or a fraction up to 1.")
    if not 0 <= request.top_logprobs <= config.top_logprobs:
        raise UserError(
            f"{name} asks for top_logprobs={request.top_logprobs}, but engine.top_logprobs={config.top_logprobs}. "
            f"Set engine.top_logprobs={max(request.top_logprobs, 1)}, or ask for none."
        )
