"""The torch side of benchmarks/train_step.py: transformers' Qwen3. Reads numbers of steps, gives seconds."""

import torch
import transformers
from _peer import job, serve
from _torch_model import build

sizes = job()
model = build(sizes, sizes).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
tokens = torch.randint(0, sizes["vocab_size"], (sizes["rows"], sizes["length"]))


def step() -> float:
    optimizer.zero_grad(set_to_none=True)
    loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


step()
serve(
    {"version": f"torch {torch.__version__}, transformers {transformers.__version__}"},
    lambda count: {"loss": [step() for _ in range(count)][-1]},
)
