"""Generation: requests in, completions out."""

from framework.inference.engine import Engine, EngineConfig
from framework.inference.types import Completion, LanguageModel, Request

__all__ = ["Completion", "Engine", "EngineConfig", "LanguageModel", "Request"]
