"""Real text that every Python has: the sources of its standard library, as windows of tokens.

Some nine million bytes of English and code written by people, enough for a small language model, without a download. Nothing is
imported. Versions of Python differ in some of the files; compare on one version.
"""

import dataclasses
import hashlib
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data.stdlib_files import stdlib_modules
from data.token_windows import TokenWindows
from framework.errors import UserError
from models.tokenizer import LanguageTokenizer

__all__ = ["StdlibText"]

_TABLES = "encodings"  # a folder of code pages: tables of numbers that are nearly copies of each other
_FEWEST = 100  # files; a whole library has four times as many, fewer is a system without its sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class StdlibText:
    """All modules one after the other, an end token after each. Implements `rl.sft_data.TokenSource`."""

    heldout_every: int = 16
    """One file in so many is held out, chosen by a digest of its content: the same in every version that has it."""
    heldout_batches: int = 16
    """Batches of an evaluation."""

    def build(
        self, tokenizer: LanguageTokenizer, *, rows: int, length: int, seed: int, say: Callable[[str], None] = print
    ) -> TokenWindows:
        """Read and tokenise the sources of the running Python's standard library (some seconds), and `say` how much there is.

        Raises:
            UserError: settings that leave too little, or a Python without its sources.
        """
        if self.heldout_every < 2:
            raise UserError(f"data.heldout_every={self.heldout_every} leaves nothing to train on. Use 2 or more.")
        root = Path(sysconfig.get_paths()["stdlib"])
        texts = _texts(root)
        if len(texts) < _FEWEST:
            raise UserError(
                f"{root} holds only {len(texts)} modules: this Python comes without the sources of its standard library. "
                "Use another Python, or token files of your own with data.token_files.TokenFiles."
            )
        train = [text for text in texts if not self._held_out(text)]
        heldout = [text for text in texts if self._held_out(text)]
        streams = [_stream(part, tokenizer) for part in (train, heldout)]
        say(
            f"standard library: {len(train)} files of {len(streams[0]):,} tokens to train on, "
            f"{len(heldout)} of {len(streams[1]):,} held out"
        )
        return TokenWindows(*streams, rows=rows, length=length, seed=seed, heldout_batches=self.heldout_batches)

    def _held_out(self, text: str) -> bool:
        return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % self.heldout_every == 0


def _texts(root: Path) -> list[str]:
    """Contents of the modules in the order of their names; equal ones once, those not in UTF-8 not at all."""
    found: dict[str, None] = {}
    for path in stdlib_modules(root):
        if _TABLES not in path.relative_to(root).parts:
            try:
                found[path.read_text(encoding="utf-8")] = None
            except UnicodeDecodeError:
                continue
    return [text for text in found if text.strip()]


def _stream(texts: Sequence[str], tokenizer: LanguageTokenizer) -> np.ndarray:
    """[N] int32: start tokens if the tokenizer has them, text, end token; and again."""
    parts = [[*tokenizer.start_ids, *tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    return np.concatenate([np.array(part, np.int32) for part in parts] or [np.zeros(0, np.int32)])
