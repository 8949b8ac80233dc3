"""The generation engine: requests in, completions out; one compiled program for each declared shape."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from framework.distributed import fetch
from framework.errors import UserError
from framework.inference.decode import DecodeBatch, Decoded, decode
from framework.inference.types import Completion, LanguageModel, Request
from framework.mesh import batch_shards, put_batch
from framework.retrace import TraceBudget

__all__ = ["Engine", "EngineConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Shapes the engine compiles for. One program for each pair of prompt bucket and group size that is used."""

    rows: int = 128
    """Sequences decoded together, all samples of all prompts counted."""
    prompt_buckets: tuple[int, ...] = (64,)
    """Prompt lengths in tokens to pad to; the largest is the longest prompt accepted."""
    group_sizes: tuple[int, ...] = (1, 8)
    """Numbers of samples that share one prefill; a request for another number runs as single samples."""
    max_new_tokens: int = 48
    """Longest continuation, tokens."""
    stop_tokens: tuple[int, ...] = (1,)
    """Token ids that end a continuation."""
    pad_token: int = 0
    """Token id of unused places."""

    def validate(self) -> None:
        """Raises UserError with the fix where sizes cannot work."""
        if not self.prompt_buckets or min(self.prompt_buckets) < 1:
            raise UserError(f"engine.prompt_buckets={self.prompt_buckets} needs at least one length of 1 or more.")
        if self.max_new_tokens < 1 or self.rows < 1:
            raise UserError(f"engine.rows={self.rows} and max_new_tokens={self.max_new_tokens} must be at least 1.")
        if not self.group_sizes or min(self.group_sizes) < 1 or max(self.group_sizes) > self.rows:
            raise UserError(
                f"engine.group_sizes={self.group_sizes} must lie between 1 and engine.rows={self.rows}. "
                f"Use rows={max((*self.group_sizes, 1))}, or smaller groups."
            )


class Engine:
    """Generates with the very module that is trained. Weights are passed by reference: no copy between trainer and engine."""

    def __init__(self, model: nnx.Module, config: EngineConfig, *, mesh: Mesh | None = None):
        config.validate()
        self.config = config
        self.mesh = mesh
        self.graphdef, self.params = nnx.split(model)
        self.vocab_size = _vocab_size(self.graphdef, self.params)
        self.version = 0
        self.budget = TraceBudget()
        count = len(config.prompt_buckets) * len({1, *config.group_sizes})
        counted = self.budget.counted(decode, name="decode", budget=count)
        self._decode = jax.jit(
            functools.partial(
                counted,
                new_tokens=config.max_new_tokens,
                stop_tokens=config.stop_tokens,
                pad_token=config.pad_token,
            ),
            static_argnums=0,
            static_argnames="samples",
        )

    def load(self, params: Any, version: int) -> None:
        """Use these weights from now on. `version` travels with each completion."""
        self.params, self.version = params, version

    def generate(self, requests: Sequence[Request], key: jax.Array) -> list[Completion]:
        """Continue every request; completions come in the order of the requests, samples of a request side by side.

        On many hosts every process gives the same requests and gets every completion.

        Raises:
            UserError: an empty prompt, one longer than the largest bucket, tokens that the model does not have, too many
                new tokens asked for.
            FloatingPointError: the model gave NaN or infinite logits.
        """
        for request in requests:
            self._check(request)
        found: dict[tuple[int, int], Completion] = {}
        for bucket, samples, batch in self._batches(requests):
            arrays = self._arrays(batch, bucket, samples)
            with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
                decoded = self._decode(self.graphdef, self.params, arrays, key, samples=samples)
            for index, completion in self._completions(batch, samples, fetch(decoded)):
                found[index, completion.sample] = completion
        return [found[i, s] for i, request in enumerate(requests) for s in range(request.samples)]

    def _check(self, request: Request) -> None:
        longest = max(self.config.prompt_buckets)
        if not (isinstance(request.id, int | np.integer) and 0 <= request.id < 2**32):
            raise UserError(
                f"a request has id={request.id!r}, which cannot name it in the randomness. Use a whole number from 0 to "
                f"{2**32 - 1}, such as its place in the list."
            )
        if not len(request.prompt):
            raise UserError(
                f"request {request.id} has an empty prompt. Give at least one token, for example a start tag."
            )
        if len(request.prompt) > longest:
            raise UserError(
                f"request {request.id} has a prompt of {len(request.prompt)} tokens, but the longest bucket holds {longest}. "
                f"Shorten the prompt, or set engine.prompt_buckets to include {_round_up(len(request.prompt), 16)}."
            )
        self._check_tokens(request)
        if request.samples < 1:
            raise UserError(f"request {request.id} asks for {request.samples} samples. Ask for at least 1.")
        if request.max_tokens is not None and not 1 <= request.max_tokens <= self.config.max_new_tokens:
            raise UserError(
                f"request {request.id} asks for max_tokens={request.max_tokens}, but the engine was built for 1 to "
                f"{self.config.max_new_tokens}. Set engine.max_new_tokens={max(request.max_tokens, 1)}."
            )
        if not math.isfinite(request.temperature) or request.temperature < 0:
            raise UserError(
                f"request {request.id} has temperature={request.temperature}. Use 0 for greedy, or a positive number."
            )

    def _check_tokens(self, request: Request) -> None:
        try:
            tokens = np.asarray(request.prompt)
        except ValueError:  # a list of lists of different lengths
            tokens = np.zeros(0)
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise UserError(
                f"request {request.id} has a prompt that is not a list of whole numbers: {str(request.prompt)[:80]}. "
                f"Give token ids from 0 to {self.vocab_size - 1}; a tokenizer makes them from text."
            )
        if tokens.min() < 0 or tokens.max() >= self.vocab_size:
            place = int(np.argmax((tokens < 0) | (tokens >= self.vocab_size)))
            raise UserError(
                f"request {request.id} has token {tokens[place]} at place {place} of its prompt, but the model has tokens 0 to "
                f"{self.vocab_size - 1}. Use the tokenizer the model was trained with."
            )

    def _batches(self, requests: Sequence[Request]) -> Iterator[tuple[int, int, list["_Prompt"]]]:
        """Split into calls of one shape: (bucket, samples a prompt, prompts of the call)."""
        queues: dict[tuple[int, int], list[_Prompt]] = {}
        for i, request in enumerate(requests):
            bucket = min(b for b in self.config.prompt_buckets if b >= len(request.prompt))
            samples = request.samples if request.samples in self.config.group_sizes else 1
            for first in range(0, request.samples, samples):
                queues.setdefault((bucket, samples), []).append(_Prompt(i, first, request))
        for (bucket, samples), queue in queues.items():
            size = self._prompts_per_call(samples)
            for start in range(0, len(queue), size):
                yield bucket, samples, queue[start : start + size]

    def _prompts_per_call(self, samples: int) -> int:
        """At least one a device: prompts are dealt out over the mesh, and places without one are empty rows."""
        shards = 1 if self.mesh is None else batch_shards(self.mesh)
        return _round_up(max(self.config.rows // samples, 1), shards)

    def _arrays(self, batch: Sequence["_Prompt"], bucket: int, samples: int) -> DecodeBatch:
        size = self._prompts_per_call(samples)
        prompts = np.full((size, bucket), self.config.pad_token, np.int32)
        segments = np.zeros((size, bucket), np.int32)
        segments[:, -1] = 1  # an unused row still needs one token to look at
        ids, offset = np.zeros(size, np.uint32), np.zeros(size, np.uint32)
        temperature, limit = np.ones(size, np.float32), np.zeros(size, np.int32)
        for row, entry in enumerate(batch):
            request = entry.request
            length = len(request.prompt)
            prompts[row, bucket - length :] = request.prompt
            segments[row, bucket - length :] = 1
            ids[row], offset[row], temperature[row] = request.id, entry.first, request.temperature
            limit[row] = request.max_tokens or self.config.max_new_tokens
        arrays = DecodeBatch(*map(jnp.asarray, (prompts, segments, ids, offset, temperature, limit)))
        return arrays if self.mesh is None else put_batch(self.mesh, arrays)

    def _completions(
        self, batch: Sequence["_Prompt"], samples: int, decoded: Decoded
    ) -> Iterator[tuple[int, Completion]]:
        if not decoded.finite:
            raise FloatingPointError(
                f"the model gave NaN or infinite logits while generating (weights version {self.version}). "
                "The weights are damaged: go back to an earlier checkpoint and lower the learning rate."
            )
        for row, prompt in enumerate(batch):
            for s in range(samples):
                r = row * samples + s
                n = int(decoded.length[r])
                reason = "stop" if decoded.stopped[r] else "length"
                tokens, logp, entropy = (np.asarray(x[r, :n]) for x in (decoded.tokens, decoded.logp, decoded.entropy))
                number = prompt.first + s
                yield prompt.index, Completion(prompt.request.id, number, tokens, logp, entropy, reason, self.version)


@dataclasses.dataclass(frozen=True)
class _Prompt:
    """A prompt of one call: which request of the caller's list, and the number of its first sample."""

    index: int
    first: int
    request: Request


def _vocab_size(graphdef: nnx.GraphDef[Any], params: Any) -> int:
    """From the shape of the output matrix [D, V]; nothing is computed."""

    def unembed(params: Any) -> jax.Array:
        model: LanguageModel = nnx.merge(graphdef, params)
        return model.unembed

    return jax.eval_shape(unembed, params).shape[1]


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
