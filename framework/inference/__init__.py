"""Generation: requests in, completions out."""

from framework.inference.config import EngineConfig
from framework.inference.engine import Engine, EngineStats
from framework.inference.types import (
    Completion,
    GroupStop,
    LanguageModel,
    QueueFull,
    Request,
    Scores,
    TextDecoder,
    Ticket,
    Update,
)

__all__ = [
    "Completion",
    "Engine",
    "EngineConfig",
    "EngineStats",
    "GroupStop",
    "LanguageModel",
    "QueueFull",
    "Request",
    "Scores",
    "TextDecoder",
    "Ticket",
    "Update",
]
