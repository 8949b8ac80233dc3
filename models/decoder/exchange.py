"""Whole folders from one format to the other: what `maypole import` and `maypole export` call."""

from pathlib import Path
from typing import Literal

from framework.errors import UserError
from models.decoder.config import DecoderConfig, DType
from models.decoder.hf import Progress, load_hf, stored_dtype
from models.decoder.hf_config import config_from_hf, config_to_hf
from models.decoder.hf_save import check_new, save_hf
from models.decoder.native import MODEL_JSON, load_native, native_config, save_native
from models.decoder.pretrained import QUANTIZED_JSON, Pretrained

__all__ = ["export_model", "import_model"]


def import_model(
    source: str, out: Path, *, dtype: DType | None = None, progress: Progress | None = None
) -> DecoderConfig:
    """A Hugging Face folder, or the hub id of a downloaded model, to a native folder. `dtype` None keeps the type of the files."""
    folder = Pretrained(path=source).folder()
    if (folder / QUANTIZED_JSON).is_file():
        raise UserError(
            f"{folder} is quantised, and generate, serve and Pretrained(path=...) open it as it is. "
            "To train, import the model it was made of."
        )
    if (folder / MODEL_JSON).is_file():
        raise UserError(f"{folder} is a native folder already. To go back: maypole export {folder} OUT")
    config = config_from_hf(folder, param_dtype=dtype or stored_dtype(folder))
    check_new(out)  # now, not after the weights are read
    save_native(config, load_hf(folder, config, progress=progress), out, tokenizer=folder)
    return config


def export_model(
    source: Path,
    out: Path,
    *,
    dtype: Literal["bfloat16", "float32"] | None = None,
    shard_size: int = 5_000_000_000,
    progress: Progress | None = None,
) -> DecoderConfig:
    """A native folder to a Hugging Face one. `dtype` None keeps the type of the native weights."""
    config = native_config(source)
    check_new(out)
    config_to_hf(config)  # refuses what no family holds
    state = load_native(source, config)
    save_hf(
        (config, state),
        out,
        tokenizer=source,
        dtype=dtype or config.param_dtype,
        shard_size=shard_size,
        progress=progress,
    )
    return config
