"""A small byte-level tokenizer for models trained from scratch, built with the `tokenizers` library."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

__all__ = ["ByteTokenizer", "TextTokenizer"]

PAD, EOS = "<pad>", "<eos>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByteTokenizer:
    """Byte-level BPE: every text can be written; `merges` joins frequent byte pairs seen in sample texts.

    With no merges a token is a byte, which is what a very small model learns symbol puzzles from.
    """

    tags: tuple[str, ...] = ("<think>", "</think>", "<answer>", "</answer>")
    """Texts that are one token each."""
    merges: int = 0
    """Number of merges learnt from the sample texts given to `build`."""

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary with all merges, rounded up to a multiple of 16."""
        return -(-(2 + len(self.tags) + 256 + self.merges) // 16) * 16

    def build(self, texts: Iterable[str] = ()) -> "TextTokenizer":
        """Make the tokenizer. `texts` are only read when `merges` is not 0. Raises ValueError on a negative `merges`."""
        if self.merges < 0:
            raise ValueError(f"tokenizer.merges={self.merges} must not be negative. Use 0 for single bytes.")
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
            tokenizer.train_from_iterator(texts, trainer)
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in specials])
        return TextTokenizer(tokenizer)


class TextTokenizer:
    """Text to token ids and back. Ids 0 and 1 are padding and end of text."""

    pad_id = 0
    eos_id = 1

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self._specials = {i: t.content for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without an end token."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

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

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`, which `tokenizers.Tokenizer.from_file` opens."""
        self.tokenizer.save(str(path))
