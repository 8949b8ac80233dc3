"""Quantisation after training: the matrices of a built decoder in MXFP4 or NVFP4, for generation.

    model = quantize_model(model, PTQ(format="mxfp4"))     # shares what is not quantised with the given model
    Engine(model, EngineConfig(...))
    save_packed(config, model, "out/model-mxfp4")
    model = open_packed("out/model-mxfp4", mesh=mesh)

Weights stay packed, in memory and on disk: 4.25 or 4.5 bits each. Every linear layer of the blocks is quantised along its inputs;
embeddings, norms, biases and the output matrix stay as they are (as in Quartet, arXiv:2505.14669, section 4).
`maypole quantise` is `quantise_folder`, and `Pretrained(path=...)` reads what it writes.
"""

import dataclasses
import hashlib
import platform
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from framework.errors import UserError
from framework.rundir import RUN_FILES
from models._ptq_files import Progress, load_packed, open_packed, save_packed, stored_ptq
from models._ptq_model import (
    PTQ,
    Format,
    PackedKernel,
    PackedMatrix,
    abstract_packed,
    pack,
    packed_layers,
    quantize_model,
    quantize_tokens,
)
from models.decoder.config import DecoderConfig
from models.decoder.hf import stored_dtype
from models.decoder.hf_names import abstract_decoder
from models.decoder.hf_save import check_new
from models.decoder.native import MODEL_JSON, native_config
from models.decoder.pretrained import QUANTIZED_JSON, Pretrained

__all__ = [
    "PTQ",
    "Format",
    "Measured",
    "PackedKernel",
    "PackedMatrix",
    "abstract_packed",
    "load_packed",
    "measure",
    "open_packed",
    "pack",
    "packed_layers",
    "quantise_folder",
    "quantize_model",
    "quantize_tokens",
    "save_packed",
    "stdlib_text",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """How well a model predicts a text."""

    loss: float
    """Nats a token."""
    tokens: int
    """Tokens that were predicted."""

    @property
    def perplexity(self) -> float:
        """e^loss."""
        return float(np.exp(self.loss))


def measure(model: Any, ids: Sequence[int], *, window: int = 512, rows: int = 4) -> Measured:
    """The mean negative log-likelihood of `ids`, read in windows of `window` tokens; the first of each is not predicted."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def total(state: nnx.State, tokens: jax.Array, segments: jax.Array) -> jax.Array:
        model: Any = nnx.merge(graphdef, state)
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden, _ = model(tokens, positions, segments)
        logp, _ = model.logprobs(hidden[:, :-1], tokens[:, 1:])
        return -jnp.sum(jnp.where(segments[:, 1:] != 0, logp, 0.0))

    count = -(-len(ids) // (window * rows)) * rows
    tokens, segments = np.zeros((2, count * window), np.int32)
    tokens[: len(ids)], segments[: len(ids)] = ids, 1
    tokens, segments = tokens.reshape(-1, rows, window), segments.reshape(-1, rows, window)
    predicted = int((segments[:, :, 1:] != 0).sum())
    loss = sum(float(total(state, a, b)) for a, b in zip(tokens, segments, strict=True))
    return Measured(loss=loss / max(predicted, 1), tokens=predicted)


def stdlib_text(characters: int) -> str:
    """The beginning of the sources of Python's standard library, its top modules in the order of their names."""
    found, size = [], 0
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py")):
        found.append(file.read_text(encoding="utf-8"))
        size += len(found[-1])
        if size >= characters:
            break
    if not found:
        raise UserError("This Python comes without the sources of its library. Give a text to measure on: --text FILE")
    return "".join(found)[:characters]


def quantise_folder(
    source: str,
    out: Path,
    ptq: PTQ,
    *,
    text: Path | None = None,
    tokens: int = 8192,
    window: int = 512,
    progress: Callable[[str], Progress] | None = None,
    say: Callable[[str], None] = print,
) -> DecoderConfig:
    """Quantise the model of a folder or hub id into `out`, and measure it before and after on `tokens` tokens (0: not at all).

    Raises:
        UserError: a source that cannot be read or is quantised already, sizes that do not fit the format, a text that is too short.
    """
    ptq.validate()
    folder = Pretrained(path=source).folder()
    if all((folder / name).is_file() for name in RUN_FILES):
        raise UserError(
            f"{folder} is a run, whose checkpoints hold more than a model. Export it first, and quantise that: "
            f"maypole export {folder} EXPORTED, then maypole quantise EXPORTED {out}"
        )
    if (folder / QUANTIZED_JSON).is_file():
        raise UserError(
            f"{folder} is quantised already, to {stored_ptq(folder).format}. Quantise the model that it was made of."
        )
    check_new(out)  # now, not after the weights are read
    native = (folder / MODEL_JSON).is_file()
    dtype = native_config(folder).param_dtype if native else stored_dtype(folder)
    compute = "float32" if jax.default_backend() == "cpu" else dtype
    pretrained = Pretrained(path=str(folder), dtype=compute, param_dtype=dtype)
    config = pretrained.config()
    abstract_packed(abstract_decoder(config), ptq)  # refuses what cannot be quantised before anything is read
    ids, about = _text(folder, config, text, tokens) if tokens else ([], {})
    bar = progress or (lambda _: lambda done, total: None)
    model = nnx.merge(nnx.split(abstract_decoder(config))[0], pretrained.load())
    notes: dict[str, Any] = {"source": source}
    window = min(window, config.max_position or window)
    before = measure(model, ids, window=window) if tokens else None
    if before is not None:
        say(f"perplexity {before.perplexity:,.4f} before, on {before.tokens:,} tokens of {about['text']}")
    model = quantize_model(model, ptq, progress=bar("quantising"))
    if before is not None:
        after = measure(model, ids, window=window)
        say(f"perplexity {after.perplexity:,.4f} after, {after.loss - before.loss:+.5f} nats a token")
        notes["perplexity"] = {
            "before": before.perplexity,
            "after": after.perplexity,
            "loss_before": before.loss,
            "loss_after": after.loss,
            "tokens": before.tokens,
            "window": window,
            **about,
        }
    save_packed(config, model, out, tokenizer=folder, notes=notes, progress=bar("writing"))
    return config


def _text(folder: Path, config: DecoderConfig, text: Path | None, tokens: int) -> tuple[list[int], dict[str, str]]:
    """Token ids to measure on, and what they are of."""
    from models.hf_tokenizer import HFTokenizer  # slow to import

    if text is None:
        content, name = stdlib_text(8 * tokens), f"the standard library of Python {platform.python_version()}"
    else:
        try:
            content, name = text.read_text(encoding="utf-8"), text.name
        except OSError as error:
            raise UserError(f"--text {text} cannot be read: {error.strerror}. Give a text file: --text FILE") from error
        except UnicodeDecodeError as error:
            raise UserError(f"--text {text} is not text in UTF-8 ({error}). Give another file: --text FILE") from error
    try:
        tokenizer = HFTokenizer(path=str(folder)).build()
    except UserError as error:
        raise UserError(f"{error} Without a tokenizer nothing can be measured: --tokens 0 leaves that out.") from error
    ids = tokenizer.encode(content)[:tokens]
    if len(ids) < 2:
        raise UserError(f"{name} has {len(ids)} tokens, and at least 2 are needed. Give a longer one: --text FILE")
    if max(ids) >= config.vocab_size:
        raise UserError(
            f"The tokenizer of {folder} makes token {max(ids)} of {name}, but the model has tokens 0 to {config.vocab_size - 1}. "
            "Use the tokenizer the model was trained with, or --tokens 0 to measure nothing."
        )
    return ids, {"text": name, "sha256": hashlib.sha256(np.asarray(ids, "<i4").tobytes()).hexdigest()}
