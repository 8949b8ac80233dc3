"""Drawing one token a row, with randomness that depends on (key, request, sample, position) alone.

B rows, V tokens. A token is drawn by inverting the distribution function in two levels: a block of tokens by the sums of the
blocks, then a token of the block. That takes two random numbers a row where the Gumbel trick takes V of them, and no sort.
"""

import dataclasses

import jax
import jax.numpy as jnp

__all__ = ["Drawn", "Sampling", "draw", "row_keys"]

_BLOCK = 64  # tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampling:
    """How each row draws."""

    temperature: jax.Array  # [B] float32, 0: the most likely token
    top_k: jax.Array  # [B] int32, 0: all
    top_p: jax.Array  # [B] float32, 1: all
    min_p: jax.Array  # [B] float32, 0: all
    minimum: jax.Array  # [B] int32, no stop token before so many tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawn:
    """A token a row; all [B]."""

    token: jax.Array  # int32
    logp: jax.Array  # float32, of the distribution drawn from; for temperature 0 that of the model
    logp_untempered: jax.Array  # float32, of the distribution of the model
    entropy: jax.Array  # float32, nats, of the distribution of the model
    finite: jax.Array  # bool, false where a logit is NaN or plus infinity, or no token is left to draw
    logz: jax.Array  # float32, log of the sum of exp(logits)


def row_keys(base: jax.Array, request_ids: jax.Array, samples: jax.Array) -> jax.Array:
    """One key a row: fold in the request's id, then the sample's number. base [B, 2], ids and samples [B] uint32 -> keys [B]."""

    def fold(base: jax.Array, request: jax.Array, sample: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(base, impl="threefry2x32")
        return jax.random.fold_in(jax.random.fold_in(key, request), sample)

    return jax.vmap(fold)(base, request_ids, samples)


def draw(keys: jax.Array, position: jax.Array, logits: jax.Array, how: Sampling, stops: jax.Array) -> Drawn:
    """Draw a token a row.

    Args:
        keys: [B] keys from `row_keys`.
        position: [B] int32, number of tokens the row has generated so far.
        logits: [B, V] float32.
        how: of each row.
        stops: [B, n] int32, tokens that `minimum` forbids; -1 is none.
    """
    top = jnp.max(logits, axis=-1, keepdims=True)
    own = logits - top
    weight = jnp.exp(own)
    total = jnp.sum(weight, axis=-1)
    log_total = jnp.log(total)
    entropy = log_total - jnp.sum(weight * jnp.where(weight > 0, own, 0.0), axis=-1) / total

    greedy = how.temperature == 0
    scaled = own / jnp.where(greedy, 1.0, how.temperature)[:, None]
    forbid = how.minimum > position
    restricted = forbid | ((how.top_k > 0) | (how.top_p < 1) | (how.min_p > 0)) & ~greedy
    scaled = jax.lax.cond(
        jnp.any(restricted),
        lambda x: _restrict(x, how, jnp.where(forbid[:, None], stops, -1), greedy),
        lambda x: x,
        scaled,
    )
    chances = jnp.exp(scaled)
    noise = jax.vmap(lambda key, t: jax.random.uniform(jax.random.fold_in(key, t), (2,)))(keys, position)
    token, mass = _invert(chances, noise)
    token = jnp.where(greedy, jnp.argmax(scaled, axis=-1).astype(jnp.int32), token)
    pick = lambda x: jnp.take_along_axis(x, token[:, None], axis=-1)[:, 0]  # noqa: E731 - [B, V] -> [B]
    logp_untempered = pick(own) - log_total
    logp = jnp.where(greedy, logp_untempered, pick(scaled) - jnp.log(mass))
    logz = top[:, 0] + log_total
    return Drawn(token, logp, logp_untempered, entropy, jnp.isfinite(logz) & jnp.isfinite(logp), logz)


def _invert(chances: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Unnormalised probabilities [B, V] and uniform numbers [B, 2] -> a token [B], the sum of the probabilities [B]."""
    rows, vocab = chances.shape
    blocks = -(-vocab // _BLOCK)
    if vocab % _BLOCK:
        chances = jnp.pad(chances, ((0, 0), (0, blocks * _BLOCK - vocab)))
    chances = chances.reshape(rows, blocks, _BLOCK)
    sums = jnp.sum(chances, axis=-1)
    block = _first_above(sums, noise[:, 0])
    inside = jnp.take_along_axis(chances, block[:, None, None], axis=1)[:, 0]
    return block * _BLOCK + _first_above(inside, noise[:, 1]), jnp.sum(sums, axis=-1)


def _first_above(mass: jax.Array, u: jax.Array) -> jax.Array:
    """The place where the running sum of mass [B, n] exceeds u [B] of the whole; never one without mass, whatever the rounding."""
    running = jnp.cumsum(mass, axis=-1)
    place = jnp.arange(mass.shape[1], dtype=jnp.int32)
    possible = mass > 0
    beyond = possible & (running > u[:, None] * running[:, -1:])
    last = jnp.max(jnp.where(possible, place, 0), axis=-1)
    return jnp.minimum(jnp.min(jnp.where(beyond, place, mass.shape[1]), axis=-1), last)


def _restrict(scaled: jax.Array, how: Sampling, forbidden: jax.Array, greedy: jax.Array) -> jax.Array:
    """Minus infinity for the tokens that may not be drawn, the largest of the others 0. scaled [B, V], forbidden [B, n]."""
    rows = jnp.arange(scaled.shape[0])[:, None]
    outside = jnp.where(forbidden < 0, scaled.shape[1], forbidden)
    scaled = scaled.at[rows, outside].set(-jnp.inf, mode="drop")
    scaled = scaled - jnp.max(scaled, axis=-1, keepdims=True)
    order = _ordered(scaled)
    everything = jnp.full(scaled.shape[:1], _ordered(jnp.float32(-jnp.inf)), jnp.int32)

    count = lambda least: jnp.sum(order >= least[:, None], axis=-1)  # noqa: E731
    k = jnp.where((how.top_k > 0) & ~greedy, jnp.minimum(how.top_k, scaled.shape[1]), 0)
    least_k = jnp.where(k > 0, _largest(lambda least: count(least) >= k, everything), everything)

    kept = jnp.where(order >= least_k[:, None], jnp.exp(scaled), 0.0)
    above = lambda least: jnp.sum(jnp.where(order >= least[:, None], kept, 0.0), axis=-1)  # noqa: E731
    wanted = how.top_p * jnp.sum(kept, axis=-1)
    least_p = jnp.where((how.top_p < 1) & ~greedy, _largest(lambda least: above(least) >= wanted, least_k), least_k)

    floor = jnp.where(greedy, -jnp.inf, jnp.log(how.min_p))
    return jnp.where((order >= least_p[:, None]) & (scaled >= floor[:, None]), scaled, -jnp.inf)


def _ordered(x: jax.Array) -> jax.Array:
    """float32 -> int32 in the same order; 0 and below become -2^31 to 0."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _largest(enough, low: jax.Array) -> jax.Array:
    """The largest threshold [B] from `low` to that of 0.0 for which `enough` still holds; it holds for `low`.

    Bisection over the integers behind the floats: exact, and no sort.
    """

    def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + ((high - low) >> 1)
        ok = enough(middle)
        return jnp.where(ok, middle, low), jnp.where(ok, high, middle)

    return jax.lax.fori_loop(0, 32, halve, (low, jnp.ones_like(low)))[0]
