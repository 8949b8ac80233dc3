"""From the folder of a checkpoint to an engine that can generate: what `maypole generate --model` and `maypole serve` open."""

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from framework.errors import UserError

if TYPE_CHECKING:
    from flax import nnx

    from framework.inference.engine import Engine

__all__ = ["Checkpoint", "Spoken", "open_checkpoint", "said_when_memory_ends"]

DType = Literal["float32", "bfloat16"]


class Spoken:
    """The tokenizer as the engine uses it for text: stop tokens that do not end an answer (`ignore_eos`) have no text.

    `decode` of the tokenizer itself ends at the first of them.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer, self._stops = tokenizer, frozenset(tokenizer.stop_ids)

    def encode(self, text: str) -> list[int]:
        """Token ids."""
        return self._tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without stop tokens."""
        return self._tokenizer.decode([i for i in ids if i not in self._stops])


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model that was read, with its tokenizer."""

    model: "nnx.Module"
    tokenizer: Any
    """A `models.tokenizer.LanguageTokenizer`."""
    max_position: int | None
    """Tokens the weights are meant for at most, where the checkpoint says."""
    parameters: int
    """Number of weights."""
    dtype: DType
    vocab_size: int
    """Tokens the model can draw."""

    def check_length(self, max_length: int | None) -> None:
        """Raises UserError for sequences that are longer than those the model was made for."""
        if max_length is not None and self.max_position is not None and max_length > self.max_position:
            raise UserError(
                f"--max-length {max_length} is more than the {self.max_position} tokens the model was made for. "
                f"Use {self.max_position}."
            )

    def engine(
        self,
        *,
        slots: int,
        max_length: int,
        decode_steps: int | None = None,
        layout: Literal["slots", "paged"] = "slots",
        cache_bytes: int | None = None,
        max_queue: int,
        top_logprobs: int = 0,
    ) -> "Engine":
        """An engine of these sizes, see `framework.inference.config.EngineConfig`. Raises UserError for sizes that cannot work."""
        from framework.inference.config import EngineConfig
        from framework.inference.engine import Engine

        self.check_length(max_length)
        stops = self.tokenizer.stop_ids
        config = EngineConfig(
            slots=slots,
            max_length=max_length,
            max_new_tokens=max_length,
            layout=layout,
            cache_bytes=cache_bytes,
            stop_tokens=stops,
            max_stop_tokens=max(len(stops), 1),
            pad_token=self.tokenizer.pad_id,
            top_logprobs=top_logprobs,
            max_queue=max_queue,
        )
        if decode_steps is not None:
            config = dataclasses.replace(config, decode_steps=decode_steps)
        with said_when_memory_ends():
            return Engine(self.model, config, tokenizer=Spoken(self.tokenizer))


@contextlib.contextmanager
def said_when_memory_ends() -> Iterator[None]:
    """A cache that does not fit in memory is a UserError: smaller sizes are the cure."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"The memory of the device is too small for the model and the cache: {str(error).splitlines()[0][:200]} "
            "Use fewer --slots, a shorter --max-length, or set --cache-bytes."
        ) from error


def open_checkpoint(
    path: str, *, dtype: DType | None = None, chat_template: str | None = None, template_values: Mapping[str, Any]
) -> Checkpoint:
    """Read a folder in Hugging Face or native format, or a model of the local Hugging Face cache. Nothing is downloaded.

    `dtype` None: float32 on a CPU, else that of the files. Raises UserError for what cannot be read.
    """
    import jax
    from flax import nnx

    # By name, as experiments are: framework must not know the model families that are built on it.
    pretrained = importlib.import_module("models.decoder.pretrained")
    names = importlib.import_module("models.decoder.hf_names")
    tokenizers = importlib.import_module("models.hf_tokenizer")
    source = pretrained.Pretrained(path=path)
    folder: Path = source.folder()
    if dtype is None:
        dtype = "float32" if jax.default_backend() == "cpu" else _stored_dtype(folder)
    # The tokenizer first: it is quick to read, and often what is missing.
    tokenizer = tokenizers.HFTokenizer(
        path=str(folder), chat_template=chat_template, template_values=template_values
    ).build()
    source = dataclasses.replace(source, dtype=dtype, param_dtype=dtype)
    config = source.config()
    graphdef = nnx.split(names.abstract_decoder(config))[0]
    model = nnx.merge(graphdef, source.load())
    return Checkpoint(model, tokenizer, config.max_position, config.parameter_count(), dtype, config.vocab_size)


def _stored_dtype(folder: Path) -> DType:
    native = importlib.import_module("models.decoder.native")
    if (folder / native.MODEL_JSON).is_file():
        return native.native_config(folder).param_dtype
    return importlib.import_module("models.decoder.hf").stored_dtype(folder)
