"""Text that was turned into tokens beforehand: flat files of 16-bit ids, as nanoGPT and the authors of Quartet keep C4.

write_token_file("train.bin", tokenizer, texts)          # texts: any iterable, such as a streamed data set
TokenFiles(train="train.bin", heldout="val.bin")         # the data of a run; nothing is read into memory
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from data.token_windows import TokenWindows
from framework.errors import UserError
from models.tokenizer import LanguageTokenizer

__all__ = ["TokenFiles", "write_token_file"]

_DTYPE = np.dtype("<u2")
_LARGEST = 2**16


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenFiles:
    """Two files of little-endian 16-bit ids without a header, mapped into memory. Implements `rl.sft_data.TokenSource`."""

    train: str
    """File to train on."""
    heldout: str
    """File to evaluate on."""
    heldout_batches: int = 32
    """Batches of an evaluation."""

    def build(
        self, tokenizer: LanguageTokenizer, *, rows: int, length: int, seed: int, say: Callable[[str], None] = print
    ) -> TokenWindows:
        """Open both files. Raises UserError for one that is missing, cut off, or made with a larger vocabulary."""
        streams = [_open(path, field, tokenizer) for path, field in ((self.train, "train"), (self.heldout, "heldout"))]
        say(f"{self.train}: {len(streams[0]):,} tokens; {self.heldout}: {len(streams[1]):,} held out")
        return TokenWindows(*streams, rows=rows, length=length, seed=seed, heldout_batches=self.heldout_batches)


def write_token_file(path: str | Path, tokenizer: LanguageTokenizer, texts: Iterable[str]) -> int:
    """Write start tokens, text and end token of every text to a new file, one after the other; returns the number of tokens.

    Raises:
        UserError: a file that is there already, or a vocabulary that 16 bits cannot count.
    """
    if tokenizer.vocab_size > _LARGEST:
        raise UserError(
            f"The tokenizer has {tokenizer.vocab_size:,} ids, but a token file counts to {_LARGEST:,}. Use a tokenizer with fewer, "
            "such as that of Llama 2."
        )
    total = 0
    try:
        with Path(path).open("xb") as file:
            for text in texts:
                ids = [*tokenizer.start_ids, *tokenizer.encode(text), tokenizer.eos_id]
                file.write(np.array(ids, _DTYPE).tobytes())
                total += len(ids)
    except FileExistsError:
        raise UserError(f"{path} is there already. Move it away, or write to another file.") from None
    return total


def _open(path: str, field: str, tokenizer: LanguageTokenizer) -> np.ndarray:
    file = Path(path)
    if not file.is_file():
        raise UserError(
            f"data.{field}={path} is no file. Write one with data.token_files.write_token_file, or set data.{field} to yours."
        )
    size = file.stat().st_size
    if not size or size % _DTYPE.itemsize:
        raise UserError(f"data.{field}={path} has {size} bytes, which is no row of 16-bit ids. Write it again.")
    tokens = np.memmap(file, _DTYPE, mode="r")
    largest = int(tokens[:1_000_000].max())  # a look at the beginning: the wrong tokenizer shows at once
    if largest >= tokenizer.vocab_size:
        raise UserError(
            f"data.{field}={path} has the id {largest}, but the tokenizer has {tokenizer.vocab_size}. "
            "Use the tokenizer that wrote it."
        )
    return tokens
