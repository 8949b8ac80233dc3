"""Teacher forcing: log-probabilities of given texts."""

from collections.abc import Sequence

import numpy as np

from framework.inference.config import EngineConfig
from framework.inference.device import Device
from framework.inference.types import Scores

__all__ = ["score_texts"]


def score_texts(
    device: Device, config: EngineConfig, texts: Sequence[Sequence[int]], temperature: float
) -> list[Scores]:
    """See `Engine.score`. Texts of about one length are rows of one call."""
    lengths = [*config.prefill_lengths]
    while lengths[-1] < config.max_length:
        lengths.append(min(2 * lengths[-1], -(-config.max_length // 16) * 16))
    groups: dict[int, list[int]] = {}
    for number, tokens in enumerate(texts):
        groups.setdefault(next(n for n in lengths if n >= len(tokens)), []).append(number)
    found: dict[int, Scores] = {}
    for length, numbers in groups.items():
        size = max(config.prefill_tokens // length, 1) * device.shards
        for start in range(0, len(numbers), size):
            part = numbers[start : start + size]
            tokens = np.full((size, length), config.pad_token, np.int32)
            segments = np.zeros((size, length), np.int32)
            for row, number in enumerate(part):
                tokens[row, : len(texts[number])] = texts[number]
                segments[row, : len(texts[number])] = 1
            logp, entropy = device.score(tokens, segments, temperature)
            for row, number in enumerate(part):
                n = len(texts[number]) - 1
                found[number] = Scores(logp[row, :n], entropy[row, :n])
    return [found[number] for number in range(len(texts))]
