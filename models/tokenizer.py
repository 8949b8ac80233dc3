"""A small byte-level tokenizer for models trained from scratch, built with the `tokenizers` library."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from framework.errors import UserError

__all__ = ["ByteTokenizer", "TextTokenizer"]

PAD, EOS = "<pad>", "<eos>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByteTokenizer:
    """Byte-level BPE: every text can be written; `merges` joins frequent byte pairs seen in sample texts.

    With no merges a token is a byte, which is what a very small model learns symbol puzzles from.
    """

    tags: tuple[str, ...] = ("<think>", "</think>", "<answer>", "</answer>")
    """Texts that are one token each, also where they stand in a question or a worked response."""
    merges: int = 0
    """Number of merges learnt from the sample texts given to `build`."""

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
            tokenizer.train_from_iterator(map(_checked, texts), trainer)
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in self.tags])
        return TextTokenizer(_without_markers(tokenizer))


def _without_markers(tokenizer: Tokenizer) -> Tokenizer:
    """Padding and end keep their ids 0 and 1, but no text becomes them: a question that says "<eos>" is five characters.

    Training the merges registers them as texts to look for, and only the file format can take that back.
    """
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in (PAD, EOS)]
    return Tokenizer.from_str(json.dumps(content))


def _checked(text: str) -> str:
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

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        added = {i: t.content for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
        self._specials = {self.pad_id: PAD, self.eos_id: EOS} | added

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without an end token. Raises UserError for half of a character (a lone surrogate)."""
        return self.tokenizer.encode(_checked(text), add_special_tokens=False).ids

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
