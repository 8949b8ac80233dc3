"""Our side of benchmarks/generate.py and generate_ragged.py: the engine. A question is {"seed": n, "arrival": bool}.

`Engine.generate` has all requests and takes those that may become longest first. With `arrival` they are handed in one by one, in
the order of the list, as a server would.

Log-probabilities and entropies of all tokens are computed and handed out with them, which no peer is asked for.
"""

from _peer import job, serve

from framework.allocator import keep_freed_memory

keep_freed_memory()

import time  # noqa: E402 - memory is asked for while jax is imported

import jax  # noqa: E402

from framework.inference import Engine, EngineConfig, Request  # noqa: E402
from models.decoder import DecoderConfig  # noqa: E402

about = job()
prompts, new = about["prompts"], about["new"]
model = DecoderConfig(**about["sizes"]).build(jax.random.key(0))
engine = Engine(
    model,
    EngineConfig(
        slots=about["slots"],
        max_length=max(len(prompt) + count for prompt, count in zip(prompts, new, strict=True)),
        max_new_tokens=max(new),
        layout=about["layout"],
        stop_tokens=(),
    ),
)
requests = [Request(id=i, prompt=prompt, max_tokens=n) for i, (prompt, n) in enumerate(zip(prompts, new, strict=True))]


def generate(question: dict) -> dict[str, float]:
    before = then = engine.stats
    steps = live = 0  # as long as requests wait

    def look() -> None:
        """Counters between the rounds."""
        nonlocal steps, live, then
        now = engine.stats
        if now.waiting:
            steps, live = steps + now.steps - then.steps, live + now.live_steps - then.live_steps
        then = now

    if question.get("arrival"):
        for request in requests:
            engine.submit(request, question["seed"])
        tokens = 0
        while not engine.idle:
            tokens += sum(len(update.tokens) for update in engine.step())
            look()
    else:
        done = engine.generate(requests, question["seed"], progress=lambda *_: look())
        tokens = sum(len(completion.tokens) for completion in done)
    after, slots = engine.stats, about["slots"]
    assert tokens == sum(new), "no row may end early"
    every = after.steps - before.steps
    found = {
        "tokens": tokens,
        "decode_steps": every,
        "compiled_calls": after.calls - before.calls,
        "slot_occupancy": (after.live_steps - before.live_steps) / (every * slots),
    }
    return found | ({"slot_occupancy_while_requests_wait": live / (steps * slots)} if steps else {})


start = time.perf_counter()
engine.warmup()
warmup_s = time.perf_counter() - start
generate({"seed": 0})
serve({"version": f"jax {jax.__version__}", "compile_s": round(warmup_s, 2)}, generate)
