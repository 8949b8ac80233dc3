"""What a tokenizer is here, and a small byte-level one for models trained from scratch.

Tokenizers of published models are read by `models.hf_tokenizer`; both are a `LanguageTokenizer`.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from framework.errors import UserError
from models.messages import read_template

if TYPE_CHECKING:
    from models.chat import ChatTemplate, Encoded

__all__ = ["CHAT_TAGS", "ByteTokenizer", "LanguageTokenizer", "TextTokenizer", "checked_text"]

PAD, EOS = "<pad>", "<eos>"

CHAT_TAGS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
"""The roles of the built-in chat template. Among the tags of a ByteTokenizer each is one token instead of ten bytes."""

_CHAT = """{%- for message in messages -%}
{{- '<|' + message.role + '|>' + message.content + eos_token -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""

_END = "\udcff"  # stands for the end token in the text of a chat: half a character, which no message may hold


class LanguageTokenizer(Protocol):
    """Text to token ids and back: what training, sampling and evaluation ask of any tokenizer."""

    @property
    def pad_id(self) -> int:
        """Fills places that hold no token; nothing reads it."""
        ...

    @property
    def eos_id(self) -> int:
        """Ends a text."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """All ids that end what a model says, `eos_id` among them: a chat model may have one for the end of a turn."""
        ...

    @property
    def start_ids(self) -> tuple[int, ...]:
        """Ids that stand before a plain text (Llama's begin-of-text); empty for most. A chat template writes its own."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids in use; a model may have more rows."""
        ...

    @property
    def chat(self) -> "ChatTemplate":
        """Conversations to ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a plain text, without start and end. Raises UserError for half of a character."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` up to the first stop id, without padding."""
        ...

    def save(self, path: Path) -> None:
        """Write a folder that transformers opens."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByteTokenizer:
    """Byte-level BPE: every text can be written; `merges` joins frequent byte pairs seen in sample texts.

    With no merges a token is a byte, which is what a very small model learns symbol puzzles from.
    """

    tags: tuple[str, ...] = ("<think>", "</think>", "<answer>", "</answer>")
    """Texts that are one token each, also where they stand in a question or a worked response."""
    merges: int = 0
    """Number of merges learnt from the sample texts given to `build`."""
    chat_template: str | None = None
    """A Jinja template, or a file that holds one, for conversations; None: `<|user|>Hi<eos><|assistant|>Hello<eos>`."""

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary with all merges, rounded up to a multiple of 16."""
        return -(-(2 + len(self.tags) + 256 + self.merges) // 16) * 16

    def build(self, texts: Iterable[str] = ()) -> "TextTokenizer":
        """Make the tokenizer. `texts` are only read when `merges` is not 0. Raises UserError on a negative `merges`."""
        if self.merges < 0:
            raise UserError(f"tokenizer.merges={self.merges} must not be negative. Use 0 for single bytes.")
        specials = [PAD, EOS, *self.tags]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocab = {token: i for i, token in enumerate(specials + alphabet)}
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.merges > 0)
        tokenizer.decoder = decoders.ByteLevel()
        if self.merges:
            trainer = trainers.BpeTrainer(
                vocab_size=len(vocab) + self.merges,
                special_tokens=[AddedToken(token, special=True) for token in specials],
                initial_alphabet=alphabet,
                show_progress=False,
            )
            tokenizer.train_from_iterator(map(checked_text, texts), trainer)
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in self.tags])
        template = self.chat_template
        if template is not None:
            template = read_template(template)
        return TextTokenizer(_without_markers(tokenizer), chat_template=template)


def _without_markers(tokenizer: Tokenizer) -> Tokenizer:
    """Padding and end keep their ids 0 and 1, but no text becomes them: a question that says "<eos>" is five characters.

    Training the merges registers them as texts to look for, and only the file format can take that back.
    """
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in (PAD, EOS)]
    return Tokenizer.from_str(json.dumps(content))


def checked_text(text: str) -> str:
    """`text`, if it is text. Half of a character comes from a byte that is not UTF-8, or from half of a JSON escape."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"The text has {text[error.start]!r} at character {error.start + 1} of {len(text)}, which is half of a character and "
            "cannot be written as tokens. Give the text in UTF-8, or leave this character out."
        ) from error
    return text


class TextTokenizer:
    """Text to token ids and back. Ids 0 and 1 are padding and end of text; no text is encoded as them."""

    pad_id = 0
    eos_id = 1

    stop_ids = (1,)
    start_ids = ()

    def __init__(self, tokenizer: Tokenizer, *, chat_template: str | None = None):
        self.tokenizer = tokenizer
        self._chat_template = _CHAT if chat_template is None else chat_template
        added = {i: t.content for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
        self._specials = {self.pad_id: PAD, self.eos_id: EOS} | added

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without an end token. Raises UserError for half of a character (a lone surrogate)."""
        return self.tokenizer.encode(checked_text(text), add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` up to the first end token; padding is left out, tags are kept, broken bytes become U+FFFD.

        Tags are decoded apart from the bytes between them: a byte decoder fed with both would glue a tag to a broken character.
        """
        parts: list[str] = []
        run: list[int] = []
        for i in [*map(int, ids), self.eos_id]:
            if i in self._specials:
                if run:
                    parts.append(self.tokenizer.decode(run, skip_special_tokens=False))
                    run = []
                if i == self.eos_id:
                    break
                if i != self.pad_id:
                    parts.append(self._specials[i])
            else:
                run.append(i)
        return "".join(parts)

    @property
    def vocab_size(self) -> int:
        """Number of ids in use."""
        return self.tokenizer.get_vocab_size()

    @property
    def chat(self) -> "ChatTemplate":
        """Conversations to ids. `eos_token` in the template is the end token; no message becomes it."""
        return self._chat

    @functools.cached_property  # behind a property, which is what a protocol can ask for
    def _chat(self) -> "ChatTemplate":
        from models.chat import ChatTemplate  # it imports this file: import here, not in a circle

        return ChatTemplate(
            self._chat_template,
            encode=self._encode_chat,
            end_ids=self.stop_ids,
            special_ids=tuple(self._specials),
            anchor=_END,
            values={"eos_token": _END},
            source="the byte tokenizer",
            shown={_END: EOS},
        )

    def _encode_chat(self, text: str) -> "Encoded":
        from models.chat import Encoded

        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        at = 0
        for number, part in enumerate(text.split(_END)):
            if number:
                ids.append(self.eos_id)
                offsets.append((at - 1, at))
            encoding = self.tokenizer.encode(checked_text(part), add_special_tokens=False)
            ids.extend(encoding.ids)
            offsets.extend((at + start, at + stop) for start, stop in encoding.offsets)
            at += len(part) + len(_END)
        return Encoded(ids, offsets)

    def save(self, path: Path) -> None:
        """Write one file if `path` ends in `.json`, which `tokenizers.Tokenizer.from_file` opens; else a folder for transformers.

        Transformers reads a written "<eos>" or "<pad>" in a text as the token, where this class reads five characters.
        """
        if path.suffix == ".json":
            self.tokenizer.save(str(path))
            return
        from transformers import PreTrainedTokenizerFast  # slow to import, and most runs write one file

        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer,
            pad_token=PAD,
            eos_token=EOS,
            chat_template=self._chat_template,
            clean_up_tokenization_spaces=False,
        )
        tokenizer.save_pretrained(str(path))
