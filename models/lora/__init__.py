"""LoRA (arXiv:2106.09685): low-rank adapters beside frozen matrices; trained, merged, and exchanged with PEFT."""

from models.lora.adapters import LoRA, LoRALinear, add_lora, merge_lora
from models.lora.peft_files import load_peft, read_peft_config, save_peft

__all__ = ["LoRA", "LoRALinear", "add_lora", "load_peft", "merge_lora", "read_peft_config", "save_peft"]
