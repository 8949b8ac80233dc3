"""Log-probabilities as both kinds of answers write them: always those of the model's own distribution, before temperature."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from framework.serve.pieces import Offsets, Pieces

__all__ = ["Tokens", "chat_logprobs", "text_logprobs"]

_LEAST = -9999.0  # what OpenAI writes for "very unlikely"; JSON has no minus infinity


class Tokens(Protocol):
    """An update or a completion of the engine: n tokens, [n] and [n, k]."""

    @property
    def tokens(self) -> np.ndarray: ...
    @property
    def logp_untempered(self) -> np.ndarray: ...
    @property
    def top_tokens(self) -> np.ndarray | None: ...
    @property
    def top_logp(self) -> np.ndarray | None: ...


def text_logprobs(found: Tokens, top: int, pieces: Pieces, offsets: Offsets) -> dict[str, Any]:
    """For `/v1/completions`. Each dictionary has the chosen token as well, so it may have one more than `top`."""
    tokens = [int(token) for token in found.tokens]
    chosen = [_finite(logp) for logp in found.logp_untempered]
    best = [
        {pieces.exact(t): logp for t, logp in reversed(row)} | {pieces.exact(token): own}
        for token, own, row in zip(tokens, chosen, _top(found, top), strict=True)
    ]
    return {
        "tokens": [pieces.exact(token) for token in tokens],
        "token_logprobs": chosen,
        "top_logprobs": best if top else None,
        "text_offset": [offsets.next(token) for token in tokens],
    }


def chat_logprobs(found: Tokens, top: int, pieces: Pieces) -> list[dict[str, Any]]:
    """For `/v1/chat/completions`: one object a token."""
    return [
        _entry(int(token), _finite(logp), pieces) | {"top_logprobs": [_entry(t, p, pieces) for t, p in row]}
        for token, logp, row in zip(found.tokens, found.logp_untempered, _top(found, top), strict=True)
    ]


def _top(found: Tokens, top: int) -> Iterator[list[tuple[int, float]]]:
    if not top or found.top_tokens is None or found.top_logp is None:
        yield from ([] for _ in found.tokens)
        return
    for tokens, logp in zip(found.top_tokens[:, :top], found.top_logp[:, :top], strict=True):
        yield [(int(t), _finite(p)) for t, p in zip(tokens, logp, strict=True)]


def _entry(token: int, logp: float, pieces: Pieces) -> dict[str, Any]:
    return {"token": pieces.text(token), "logprob": logp, "bytes": list(pieces.bytes(token))}


def _finite(logp: float) -> float:
    return max(float(logp), _LEAST)
