"""What single tokens write, as bytes: a token may be part of a character, which no decoder of texts can show."""

import codecs
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["Offsets", "Pieces"]


class Pieces:
    """Bytes and texts of the tokens of a tokenizer."""

    def __init__(self, tokenizer: Any):
        """`tokenizer` is a `models.tokenizer.LanguageTokenizer`: a wrapper of `tokenizers.Tokenizer` or of transformers' one."""
        inner = tokenizer.tokenizer
        self._inner = getattr(inner, "backend_tokenizer", inner)
        self._added = {i: token.content for i, token in self._inner.get_added_tokens_decoder().items()}
        kinds = _decoder_kinds(self._inner.decoder)
        self._letters: Mapping[str, int] = _byte_letters() if "ByteLevel" in kinds else {}
        self._space = "▁" if kinds & {"Metaspace", "Replace"} else ""
        self._fallback = "ByteFallback" in kinds
        self.longest = max(len(self.bytes(i)) for i in range(self._inner.get_vocab_size()))
        """Bytes of the longest token: no text is fewer tokens than its bytes divided by this."""

    def bytes(self, token: int) -> bytes:
        """What it adds to a text, in UTF-8. Nothing for ids past the vocabulary, which the spare rows of a model stand for."""
        piece = self._inner.id_to_token(token)
        if piece is None:
            return b""
        if self._fallback and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        if token in self._added:
            return self._added[token].encode()
        if self._letters:
            if all(letter in self._letters for letter in piece):
                return bytes(self._letters[letter] for letter in piece)
            return piece.encode()
        return (piece.replace(self._space, " ") if self._space else piece).encode()

    def text(self, token: int) -> str:
        """To read; broken characters become U+FFFD."""
        return self.bytes(token).decode("utf-8", "replace")

    def exact(self, token: int) -> str:
        """As `text`, but part of a character is written `bytes:\\xe3\\x81`, as OpenAI does, so that no two look the same."""
        raw = self.bytes(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class Offsets:
    """Where in the text each token begins, in characters, for tokens that come one after the other."""

    def __init__(self, pieces: Pieces):
        self._pieces, self._at = pieces, 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def next(self, token: int) -> int:
        """The offset of the next token."""
        at = self._at
        self._at += len(self._decoder.decode(self._pieces.bytes(token)))
        return at


def _decoder_kinds(decoder: Any) -> set[str]:
    """Names of the steps that a tokenizer's decoder takes."""
    if decoder is None:
        return set()
    content = json.loads(decoder.__getstate__())
    return {step["type"] for step in content.get("decoders", [content])}


def _byte_letters() -> dict[str, int]:
    """The letters that byte-level vocabularies write bytes with: printable ones stand for themselves, others count on from 256."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
