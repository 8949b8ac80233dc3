"""The torch side of benchmarks/train_step.py: transformers' Qwen3 on two threads. Reads "steps N" lines, prints seconds."""

import json
import sys
import time

import torch
import transformers

sizes = json.loads(sys.argv[1])
torch.manual_seed(0)
torch.set_num_threads(sizes["threads"])
config = transformers.Qwen3Config(
    vocab_size=sizes["vocab_size"],
    hidden_size=sizes["dim"],
    intermediate_size=sizes["mlp_dim"],
    num_hidden_layers=sizes["layers"],
    num_attention_heads=sizes["heads"],
    num_key_value_heads=sizes["kv_heads"],
    head_dim=sizes["head_dim"],
    tie_word_embeddings=True,
    use_cache=False,
)
model = transformers.Qwen3ForCausalLM._from_config(config, attn_implementation="sdpa").train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
tokens = torch.randint(0, config.vocab_size, (sizes["rows"], sizes["length"]))


def step() -> float:
    optimizer.zero_grad(set_to_none=True)
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


step()
print(
    json.dumps({"ready": True, "version": f"torch {torch.__version__}, transformers {transformers.__version__}"}),
    flush=True,
)
for line in sys.stdin:
    start, cpu = time.perf_counter(), time.process_time()
    loss = [step() for _ in range(int(line))][-1]
    print(
        json.dumps({"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu, "loss": loss}),
        flush=True,
    )
