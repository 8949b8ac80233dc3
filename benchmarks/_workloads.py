"""What the benchmarks run: Qwen3-shaped models and the lengths of prompts and answers. Standard library only."""

import math
import random
import statistics

__all__ = ["SIZES", "lognormal_lengths", "random_prompts", "simulated_steps"]

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"vocab_size": 256, "dim": 32, "mlp_dim": 64, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16},
    "small": {"vocab_size": 4096, "dim": 256, "mlp_dim": 768, "layers": 6, "heads": 8, "kv_heads": 4, "head_dim": 32},
    "medium": {"vocab_size": 8192, "dim": 512, "mlp_dim": 1536, "layers": 8, "heads": 8, "kv_heads": 4, "head_dim": 64},
}


def random_prompts(count: int, shortest: int, longest: int, vocab_size: int) -> list[list[int]]:
    """Ragged prompts of random tokens; token 0, the padding of some peers, is not among them."""
    rng = random.Random(0)
    lengths = [rng.randint(shortest, longest) for _ in range(count)]
    lengths[0] = longest  # so that the longest one is always there
    return [[rng.randrange(1, vocab_size) for _ in range(length)] for length in lengths]


def lognormal_lengths(count: int, mean: float, longest: int, sigma: float) -> list[int]:
    """Numbers of new tokens, log-normal with this mean and cut to 1..longest: the quantiles in random order, so that no figure
    depends on which tails were drawn."""
    normal = statistics.NormalDist(math.log(mean) - sigma**2 / 2, sigma)
    drawn = [math.exp(normal.inv_cdf((i + 0.5) / count)) for i in range(count)]
    lengths = [min(max(round(length), 1), longest) for length in drawn]
    random.Random(0).shuffle(lengths)
    return lengths


def simulated_steps(lengths: list[int], slots: int) -> int:
    """Decode steps of a scheduler that fills each free slot at once, in order of arrival; none that keeps the order needs fewer."""
    ends = [0] * slots
    for length in lengths:
        first = min(range(slots), key=ends.__getitem__)
        ends[first] += length
    return max(ends)
