"""A decoder-only language model for training and for cached generation."""

from models.decoder.cache import Cache
from models.decoder.config import DecoderConfig
from models.decoder.model import Decoder

__all__ = ["Cache", "Decoder", "DecoderConfig"]
