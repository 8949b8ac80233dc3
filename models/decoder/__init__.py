"""A decoder-only language model for training and for cached generation: Llama, Mistral, Qwen2, Qwen3."""

from models.decoder.cache import FreshCache, KVCache, SlotCache
from models.decoder.config import DecoderConfig
from models.decoder.hf import from_hf, load_hf
from models.decoder.hf_config import config_from_hf
from models.decoder.hf_save import save_hf
from models.decoder.model import Decoder
from models.decoder.native import save_native
from models.decoder.paged import PagedCache
from models.decoder.pretrained import Pretrained
from models.decoder.rope import LinearRope, Llama3Rope, RopeScaling, YarnRope

__all__ = [
    "Decoder",
    "DecoderConfig",
    "FreshCache",
    "KVCache",
    "LinearRope",
    "Llama3Rope",
    "PagedCache",
    "Pretrained",
    "RopeScaling",
    "SlotCache",
    "YarnRope",
    "config_from_hf",
    "from_hf",
    "load_hf",
    "save_hf",
    "save_native",
]
