"""How to sample: the fields that both kinds of completions share, and the engine's request made of them."""

import dataclasses
import secrets
from collections.abc import Sequence

import numpy as np

from framework.inference.check import LONGEST_STOP
from framework.inference.types import Request
from framework.serve.errors import ApiError
from framework.serve.fields import Fields

__all__ = ["Keyed", "Limits", "Sampling", "as_request", "read_sampling"]

Keyed = tuple[Request, np.ndarray]
"""A request of the engine, and the key of its randomness, [2] uint32."""

_MOST_SAMPLES = 128
_MOST_STOPS = 16
_SEEDS = 2**63


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What the engine was built for."""

    max_length: int
    """Tokens of a prompt and its answer together."""
    vocab_size: int
    """Token ids the model has."""
    top_logprobs: int
    """Most likely tokens that a request may ask to see."""
    max_queue: int
    """Prompts that may wait."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """One request's wishes, as the engine counts them."""

    samples: int
    max_tokens: int | None
    min_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    stop: tuple[str, ...]
    ignore_eos: bool
    seed: int | None
    """None: another answer every time."""
    stream: bool
    include_usage: bool
    """A stream ends with a chunk that has the token counts."""
    token_ids: bool
    """Answers hold the token ids as well."""
    logprobs: int | None
    """How many of the most likely tokens to show beside each chosen one; 0: the chosen alone; None: no log-probabilities."""


def read_sampling(fields: Fields, *, max_tokens: int | None, logprobs: int | None) -> Sampling:
    """The shared fields. `max_tokens` and `logprobs` are named differently by each kind, which has read them."""
    min_tokens = fields.integer("min_tokens", low=0) or 0
    if max_tokens is not None and min_tokens > max_tokens:
        raise fields.wrong("min_tokens", f"{min_tokens} is more than the {max_tokens} tokens asked for at most")
    stream = fields.flag("stream")
    options = fields.inner("stream_options")
    include_usage = options.flag("include_usage")
    options.ignore("include_obfuscation")
    options.finish()
    temperature, top_p = fields.number("temperature", low=0), fields.number("top_p", low=0, high=1, above=True)
    top_k = fields.integer("top_k", low=-1) or 0
    _refuse_unsupported(fields)
    return Sampling(
        samples=fields.integer("n", low=1, high=_MOST_SAMPLES) or 1,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=1.0 if temperature is None else temperature,
        top_k=max(top_k, 0),  # -1 says "all" in other servers
        top_p=1.0 if top_p is None else top_p,
        min_p=fields.number("min_p", low=0, high=1) or 0.0,
        stop=_stops(fields),
        ignore_eos=fields.flag("ignore_eos"),
        seed=fields.integer("seed", low=-_SEEDS, high=_SEEDS - 1),
        stream=stream,
        include_usage=include_usage and stream,
        token_ids=fields.flag("return_token_ids"),
        logprobs=logprobs,
    )


def _refuse_unsupported(fields: Fields) -> None:
    for field in ("presence_penalty", "frequency_penalty"):
        fields.refuse(field, "penalties are not supported. Leave it out, or set it to 0", harmless=(0,))
    fields.refuse("logit_bias", "biases are not supported. Leave it out", harmless=({},))
    fields.ignore("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")


def _stops(fields: Fields) -> tuple[str, ...]:
    value = fields.take("stop")
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return ()
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise fields.wrong("stop", "it must be a string or a list of strings")
    if len(stops) > _MOST_STOPS:
        raise fields.wrong("stop", f"it has {len(stops)} strings and may have {_MOST_STOPS}")
    if "" in stops:
        raise fields.wrong("stop", "an empty string would stop every answer at once. Leave it out")
    longest = max(map(len, stops), default=0)
    if longest > LONGEST_STOP:
        raise fields.wrong("stop", f"a string has {longest} characters and may have {LONGEST_STOP}")
    return tuple(dict.fromkeys(stops))


def as_request(prompt: Sequence[int], sampling: Sampling, limits: Limits, *, param: str) -> Keyed:
    """(request, key) for the engine. Raises ApiError where prompt and answer do not fit; `param` names the prompt's field.

    Every prompt is request 0 of its own key: an answer depends on seed, prompt and number of the sample alone, not on what
    else is in the same HTTP request.
    """
    if not prompt:
        raise ApiError(400, "The prompt has no tokens: there is nothing to continue. Write something.", param=param)
    room = limits.max_length - len(prompt)
    least = sampling.max_tokens or max(1, sampling.min_tokens)
    if room < least:
        raise ApiError(
            400,
            f"This model's maximum context length is {limits.max_length} tokens. However, you requested {len(prompt) + least} "
            f"tokens ({len(prompt)} in the prompt, {least} in the completion). Shorten the prompt or the completion.",
            param=param,
            code="context_length_exceeded",
        )
    request = Request(
        id=0,
        prompt=prompt,
        samples=sampling.samples,
        max_tokens=sampling.max_tokens or room,
        min_tokens=sampling.min_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        stop=sampling.stop,
        ignore_stop=sampling.ignore_eos,
        top_logprobs=sampling.logprobs or 0,
    )
    return request, _key(secrets.randbits(64) if sampling.seed is None else sampling.seed)


def _key(seed: int) -> np.ndarray:
    """[2] uint32: all 64 bits of a seed. For a seed of 32 bits the key that jax makes of it."""
    return np.array([(seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)
