"""A model that starts from a checkpoint: stands in an experiment's config in the place of a `DecoderConfig`."""

import dataclasses
import re
from pathlib import Path

from flax import nnx
from jax.sharding import Mesh

from framework.errors import UserError
from kernels_pallas.attention import Impl as AttentionImpl
from models.decoder.config import DecoderConfig, DType, Remat
from models.decoder.hf import load_hf
from models.decoder.hf_config import config_from_hf
from models.decoder.native import MODEL_JSON, load_native, native_config

__all__ = ["QUANTIZED_JSON", "Pretrained"]

QUANTIZED_JSON = "quantized.json"
"""In the folder of a quantised model, which `maypole quantise` writes."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Llama, Mistral, Qwen2 / Qwen2.5 or Qwen3 from a checkpoint in Hugging Face or native format."""

    path: str
    """A folder with config.json and safetensors, one made by `maypole import`, or the hub id of a model that was downloaded; to
    generate only, also one made by `maypole quantise`."""
    scan: bool = False
    """One stacked array for all layers, compiled once (quick to compile); False: layers unrolled (quicker to run)."""
    remat: Remat = "none"
    """What the backward pass computes again: nothing; "full": all of a block but its input; "dots": all but matrix products."""
    attention: AttentionImpl = "auto"
    """Implementation of attention, see `kernels_pallas.attention`; "auto" takes the best for the platform."""
    dtype: DType = "float32"
    """Type that activations are computed in."""
    param_dtype: DType = "float32"
    """Type that parameters are kept in; float32 with dtype="bfloat16" is training with master weights."""

    def folder(self) -> Path:
        """Where the checkpoint lies on this machine. Raises UserError when it is not there; nothing is downloaded."""
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            return folder
        if folder.exists() or not _HUB_ID.fullmatch(self.path):
            kind = "is a file" if folder.exists() else "is not there"
            raise UserError(
                f"model.path={self.path!r} {kind}. Give the folder of a checkpoint, or a hub id such as Qwen/Qwen3-0.6B."
            )
        from huggingface_hub import snapshot_download  # slow to import, and most paths are folders
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.path, local_files_only=True))
        except LocalEntryNotFoundError as error:
            raise UserError(
                f"model.path={self.path!r} is neither a folder here nor a model in the local Hugging Face cache, and nothing is "
                f"downloaded while an experiment runs. Type: hf download {self.path}"
            ) from error

    def config(self) -> DecoderConfig:
        """The model's sizes from the checkpoint with the fields of this config; reads no weights."""
        folder = self.folder()
        if (folder / MODEL_JSON).is_file():
            config = dataclasses.replace(native_config(folder), **self._runtime())
            config.validate()
            return config
        return config_from_hf(folder, **self._runtime())

    def load(self, mesh: Mesh | None = None) -> nnx.State:
        """The weights, as `nnx.split(model)[1]` of the built config has them, split over `mesh` (None: on the first device)."""
        folder, config = self.folder(), self.config()
        if (folder / QUANTIZED_JSON).is_file():
            if mesh is not None:
                raise UserError(
                    f"{folder} holds quantised weights, which cannot be trained. Use the model it was made of. To generate on a "
                    "mesh: Engine(models.ptq.open_packed(folder, mesh=mesh), config, mesh=mesh)."
                )
            from models._ptq_files import load_packed  # it reads folders by this module

            return load_packed(folder, config)
        if (folder / MODEL_JSON).is_file():
            return load_native(folder, config, mesh=mesh)
        return load_hf(folder, config, mesh=mesh)

    def _runtime(self) -> dict:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "path"}
