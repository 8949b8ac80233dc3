"""transformers' `generate` for benchmarks/generate.py and generate_ragged.py: batches of `slots` prompts, each to its longest row.

A question is {"seed": n, "cache": "dynamic" | "static"}. Tokens past a row's own length are not counted.
"""

import torch
import transformers
from _peer import job, serve
from _torch_model import build

about = job()
slots = about["slots"]
model = build(about, about["sizes"]).eval()


def batches() -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    """Left-padded prompts, attention mask, new tokens of the longest row."""
    found = []
    for start in range(0, len(about["prompts"]), slots):
        prompts, new = about["prompts"][start : start + slots], about["new"][start : start + slots]
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        found.append((ids, mask, max(new)))
    return found


BATCHES = batches()


@torch.inference_mode()
def generate(question: dict) -> dict[str, float]:
    torch.manual_seed(question["seed"])
    for ids, mask, longest in BATCHES:
        out = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=longest,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            cache_implementation=question["cache"],
        )
        assert out.shape[1] == ids.shape[1] + longest, "no row may end before the longest"
    row_steps = sum(len(ids) * longest for ids, _, longest in BATCHES)
    return {"tokens": sum(about["new"]), "slot_occupancy": sum(about["new"]) / row_steps}


for cache in ("dynamic", "static"):
    generate({"seed": 0, "cache": cache})
serve({"version": f"torch {torch.__version__}, transformers {transformers.__version__}"}, generate)
