"""Tokenizers in Hugging Face format, trained here on a few sentences, with templates in the shape of published ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\nThe capital is Paris.\n\n",
    "system: You are a helpful assistant. кот спит, 日本語のテキスト",
    "[INST] Is the answer 42? [/INST] Yes, the answer is 42.",
] * 4

CHATML = """{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

# A default system prompt, tools, tool answers as a user's turn.
QWEN25 = """{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}{%- if tools %}{{- '<|im_start|>system\\n<tools>' + (tools | tojson) + '</tools><|im_end|>\\n' }}{%- endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}{{- '<|im_start|>user\\n<tool_response>' + m.content + '</tool_response><|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content }}
{%- for call in m.tool_calls or [] %}{{- '<tool_call>' + (call.function | tojson) + '</tool_call>' }}{%- endfor %}
{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

# Thoughts of turns before the last question are dropped; the turns after it always have a block of thoughts.
QWEN3 = """{%- set ns = namespace(last=0) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' %}{%- set parts = m.content.split('</think>') %}
{%- set answer = parts[-1].lstrip('\\n') %}
{%- if loop.index0 > ns.last %}
{{- '<think>\\n' + (parts[0].split('<think>')[-1].strip('\\n') if parts | length > 1 else '') }}
{{- '\\n</think>\\n\\n' }}{%- endif %}
{{- answer }}{%- else %}{{- m.content }}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""

# Begin-of-text, trimmed contents, today's date.
LLAMA3 = """{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string + '<|eot_id|>' }}
{%- for m in messages %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

# Alternating roles only, the system prompt stands in the last question, no header before an answer.
MISTRAL = """{{- bos_token }}{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content + '\\n\\n' %}{%- set turns = messages[1:] %}
{%- else %}{%- set system = '' %}{%- set turns = messages %}{%- endif %}
{%- for m in turns %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate user/assistant') }}{%- endif %}
{%- if m.role == 'user' %}{{- '[INST] ' + (system if loop.index0 >= (turns | length) - 2 else '') + m.content + '[/INST]' }}
{%- else %}{{- ' ' + m.content + eos_token }}{%- endif %}{%- endfor %}"""

# The answer between the tags, its end token too; a newline behind them.
MARKED = """{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' %}
{%- generation %}{{- m.content + '<|im_end|>' }}{%- endgeneration %}
{%- else %}{{- m.content + '<|im_end|>' }}{%- endif %}
{{- '\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

# How Llama 3 and Qwen cut a text before merging: line ends stay together, whatever follows.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

TEMPLATES = {
    "chatml": CHATML,
    "qwen25": QWEN25,
    "qwen3": QWEN3,
    "llama3": LLAMA3,
    "gpt2": LLAMA3,  # cuts a text as GPT-2 does: the last of several line ends belongs to what follows
    "mistral": MISTRAL,
    "marked": MARKED,
}
_CONTROL = {
    "gpt2": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "mistral": ["<s>", "</s>", "[INST]", "[/INST]"],
}
_CHATML_CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def make(family: str, *, template: str | None = None, eos: str | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE; Mistral's is a SentencePiece one, which writes a space as a letter."""
    control = _CONTROL.get(family, _CHATML_CONTROL)
    if family == "mistral":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
        extra = ["<unk>", *(f"<0x{i:02X}>" for i in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*extra, *control], show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE())
        cut = [pre_tokenizers.Split(Regex(SPLIT), "isolated")] if family != "gpt2" else []
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not cut)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=control, initial_alphabet=alphabet, show_progress=False
        )
    tokenizer.train_from_iterator(TEXTS, trainer)
    bos = {"llama3": "<|begin_of_text|>", "gpt2": "<|begin_of_text|>", "mistral": "<s>"}.get(family)
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos or {"llama3": "<|eot_id|>", "gpt2": "<|eot_id|>", "mistral": "</s>"}.get(family, "<|im_end|>"),
        pad_token=None if bos else "<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    if family == "qwen3":
        wrapped.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    wrapped.chat_template = TEMPLATES.get(family) if template is None else template
    return wrapped


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory) -> Callable[[str], Path]:
    """Folder of the tokenizer of a family, made once."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            make(family).save_pretrained(made[family])
        return made[family]

    return folder
