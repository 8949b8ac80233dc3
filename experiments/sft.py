"""Supervised fine-tuning of any decoder on any conversations: the experiment to copy for your own data.

maypole run sft                          a byte-level model learns what functions of the standard library do; two CPU cores, minutes
maypole run sft:lora                     the same with adapters on random weights, to see the parts work
docs/models.md shows a config for conversations of your own.

`paper` is Qwen2.5-7B on 16 chips with the recipe most chat models of 2025 used: AdamW at 1e-5, packed rows, loss on the
assistant's tokens. It is checked with: maypole plan sft:paper --topology v5p:2x2x4
"""

import dataclasses

from data.chats import Chats
from data.conversations import ConversationFile
from data.stdlib_docs import StdlibDocs
from framework.mesh import MeshConfig
from framework.optimizer import AdamW
from models.decoder import DecoderConfig
from models.decoder.sizes import QWEN25_7B
from models.hf_tokenizer import HFTokenizer
from models.lora import LoRA
from models.tokenizer import CHAT_TAGS, ByteTokenizer
from rl.sft import SFT, SFTEvaluation

__all__ = ["lora", "paper", "smoke", "tiny"]

tiny = SFT(
    name="sft",
    model=DecoderConfig(dim=128, layers=4, heads=4, kv_heads=2, head_dim=32, mlp_dim=384),
    tokenizer=ByteTokenizer(tags=CHAT_TAGS),
    data=Chats(source=StdlibDocs()),
    rows=16,
    length=256,
    epochs=6.0,
    optimizer=AdamW(lr=3e-3, warmup_steps=40, schedule="cosine", weight_decay=0.1),
    evaluation=SFTEvaluation(every=100, answers=8, max_prompt=96, max_new_tokens=100),
)

smoke = dataclasses.replace(
    tiny,
    model=DecoderConfig(dim=32, layers=1, heads=2, kv_heads=1, head_dim=16, mlp_dim=64),
    rows=4,
    length=128,
    steps=3,
    evaluation=SFTEvaluation(every=2, answers=2, max_prompt=96, max_new_tokens=16),
    checkpoint_every=2,
)

lora = dataclasses.replace(smoke, name="sft_lora", trainable=LoRA(rank=4, alpha=8.0))

paper = SFT(
    name="sft_paper",
    # The sizes of Qwen2.5-7B, so that it can be planned anywhere. To train it: model=Pretrained(path=..., dtype="bfloat16",
    # scan=True, remat="full") and tokenizer=HFTokenizer(path=...) with the folder of the checkpoint.
    model=dataclasses.replace(QWEN25_7B, scan=True, remat="full", dtype="bfloat16"),
    tokenizer=HFTokenizer(path="Qwen/Qwen2.5-7B"),
    data=Chats(source=ConversationFile(path="HuggingFaceH4/ultrachat_200k", split="train_sft", heldout=500)),
    rows=128,
    length=4096,
    microbatches=2,
    epochs=2.0,
    optimizer=AdamW(lr=1e-5, warmup_steps=100, schedule="cosine"),
    mesh=MeshConfig(fsdp=16),
)
