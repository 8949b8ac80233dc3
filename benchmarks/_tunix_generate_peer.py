"""Tunix's own sampler for benchmarks/generate.py: one batch, prompts left-padded to the longest. A question is {"seed": n}."""

from importlib.metadata import version

import jax
from _peer import job, serve
from _tunix_model import NumberTokenizer, build
from tunix.generate.sampler import CacheConfig, Sampler

about = job()
sizes, longest, new = about["sizes"], max(map(len, about["prompts"])), max(about["new"])
mesh, model = build(sizes)
prompts = [" ".join(map(str, prompt)) for prompt in about["prompts"]]
with mesh:
    sampler = Sampler(
        model,
        NumberTokenizer(sizes["vocab_size"]),
        CacheConfig(
            cache_size=longest + new,
            num_layers=sizes["layers"],
            num_kv_heads=sizes["kv_heads"],
            head_dim=sizes["head_dim"],
        ),
    )

    def generate(question: dict) -> dict[str, float]:
        out = sampler(
            prompts,
            max_generation_steps=new,
            max_prompt_length=longest,
            temperature=1.0,
            top_p=1.0,  # with no top_k this is its quick way: no sorting
            seed=question["seed"],
        )
        tokens = sum(map(len, out.tokens))
        assert tokens == sum(about["new"]), "no row may end early"
        return {"tokens": tokens}

    generate({"seed": 0})
    serve({"version": f"google-tunix {version('google-tunix')}, jax {jax.__version__}"}, generate)
