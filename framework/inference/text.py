"""Text out of tokens while they arrive, and the stop strings in it. Knows no tokenizer, only its `decode`.

    stream = TextStream(tokenizer.decode, stop=("\n\nQuestion:",))
    for tokens in arriving:
        show(stream.push(tokens))         # only text that will not change
        if stream.stopped is not None: ...
    show(stream.finish())

A token is no text of its own: it may hold a part of a character, and some tokenizers drop the blank before the first one. So a
few tokens before the new ones are decoded again together with them, and what their text grows by is new.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from framework.errors import UserError

__all__ = ["TextStream", "token_texts", "watch_mask"]

Decode = Callable[[Sequence[int]], str]

_BROKEN = "\ufffd"  # what decoding writes for bytes that are no character, or not yet
_UNFINISHED = 3  # tokens that an unfinished character can have: four bytes make one, and a token is a byte or more
_CONTEXT = 12  # tokens of text kept before the new ones
_BLOCK = 512  # tokens whose texts are found at once
_SEPARATORS = "\x1e\x1f\x1d~|a"
_LIMIT = 32  # tokens that are decoded again at most, before old ones are given up


class TextStream:
    """The text of one sequence, piece by piece. The pieces together are `decode` of all its tokens, up to a stop string.

    A character whose bytes are not all there is held back, and so is an end that may be the beginning of a stop string.
    Of several stop strings that one token completes, the one that begins first counts, and of those the shortest.

    One difference to `decode` of everything remains: tokenizers with a token a byte (SentencePiece's byte fallback) write a
    whole row of such tokens as broken when one of its bytes is. Characters that were whole before it came have been said. A row
    that spells U+FFFD, the sign for broken bytes, is taken for broken as well.
    """

    def __init__(self, decode: Decode, stop: tuple[str, ...] = (), *, min_tokens: int = 0):
        """A stop string that is complete before there are `min_tokens` tokens is text like any other."""
        check_stop(stop)
        self.stopped: tuple[int, str] | None = None
        """(number of tokens up to the one that completed a stop string, that string)."""
        self._stop, self._min_tokens = tuple(stop), min_tokens
        self._longest = max(map(len, stop), default=0)
        self._window = _Window(decode)
        self._count = 0
        self._held = ""  # final text that may be the beginning of a stop string
        self._said: list[str] = []
        self._finished = False

    @property
    def text(self) -> str:
        """All that was returned so far: after `finish`, or a stop, the whole text without the stop string."""
        return "".join(self._said)

    def push(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The new text that is final. Tokens behind the one that completed a stop string are left out."""
        if self.stopped is not None or self._finished:
            return ""
        tokens = [int(token) for token in tokens]
        window = self._window.copy()
        text = self._held + window.add(tokens)
        match = self._first_stop(text)
        if match is not None and len(tokens) > 1:  # which token completed it shows only one by one
            return "".join([self.push([token]) for token in tokens])
        self._window, self._count = window, self._count + len(tokens)
        if match is not None and self._count >= self._min_tokens:
            begin, string = match
            self.stopped, self._held = (self._count, string), ""
            return self._say(text[:begin])
        keep = self._possible_beginning(text)
        self._held = text[len(text) - keep :]
        return self._say(text[: len(text) - keep])

    def after(self, tokens: Sequence[int]) -> "TextStream":
        """A stream with the same stop strings that has said the text of `tokens`, stop strings in it included."""
        twin = TextStream(self._window.decode)
        twin.push(tokens)
        twin._stop, twin._longest, twin._min_tokens = self._stop, self._longest, self._min_tokens
        return twin

    def copy(self) -> "TextStream":
        """One that goes on on its own."""
        twin = TextStream(self._window.decode, self._stop, min_tokens=self._min_tokens)
        twin.stopped, twin._count, twin._held = self.stopped, self._count, self._held
        twin._said, twin._finished = self._said.copy(), self._finished
        twin._window = self._window.copy()
        return twin

    def finish(self) -> str:
        """What was held back: nothing follows."""
        if self.stopped is not None or self._finished:
            return ""
        self._finished = True
        held, self._held = self._held, ""
        return self._say(held + self._window.rest())

    def _say(self, text: str) -> str:
        if text:
            self._said.append(text)
        return text

    def _first_stop(self, text: str) -> tuple[int, str] | None:
        found = [(text.find(string), len(string), string) for string in self._stop if string in text]
        if not found:
            return None
        begin, _, string = min(found)
        return begin, string

    def _possible_beginning(self, text: str) -> int:
        """How many of the last characters may be the beginning of a stop string."""
        for n in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[-n:]
            if any(string.startswith(end) for string in self._stop if len(string) > n):
                return n
        return 0


@dataclasses.dataclass
class _Window:
    """The last tokens, and how much of their text was said."""

    decode: Decode
    tokens: list[int] = dataclasses.field(default_factory=list)
    said: str = ""  # the text of `tokens` begins with it
    whole: int = 0  # after so many of the tokens no character was unfinished
    limit: int = _LIMIT
    ended: bool = False  # by a stop token, behind which `decode` gives no text

    def copy(self) -> "_Window":
        return dataclasses.replace(self, tokens=self.tokens.copy())

    def rest(self) -> str:
        text = self.decode(self.tokens)
        new, self.said = text[len(self.said) :], text
        return new

    def add(self, tokens: Sequence[int]) -> str:
        """The text that has become final with these tokens."""
        if self.ended or not tokens:
            return ""
        self.tokens.extend(tokens)
        text = self.decode(self.tokens)
        whole, final = self._whole(text)
        unfinished = len(self.tokens) - whole
        changed = unfinished > _UNFINISHED and not text.startswith(self.said)
        if self.whole and (changed or not final.startswith(self.said)):
            # Byte fallback: a broken byte changes how the row of bytes before it is written, which was said. Begin behind it.
            tokens = self.tokens[self.whole :]
            self.tokens, self.said, self.whole = [], "", 0
            return self.add(tokens)
        if unfinished and text.startswith(final):
            final = text[: max(len(final), len(text) - _count_broken(reversed(text)))]
        new = final[len(self.said) :]
        self.said, self.whole = final, whole
        if len(self.tokens) > self.limit:
            self._shorten(text)
        return new

    def _whole(self, text: str) -> tuple[int, str]:
        """After how many tokens no character was unfinished, as late as can be, and the text up to there."""
        if not text.endswith(_BROKEN):
            return len(self.tokens), text
        for n in range(len(self.tokens) - 1, max(len(self.tokens) - 1 - _UNFINISHED, self.whole), -1):
            shorter = self.decode(self.tokens[:n])
            if not shorter.endswith(_BROKEN):
                return n, shorter
        return self.whole, self.said

    def _shorten(self, text: str) -> None:
        """Give up old tokens, where the text of the others shows that they are not needed.

        The text of the tokens that stay has to be the end of the whole text. It may begin with broken bytes, where the cut
        goes through a character; and as a row of byte tokens has to begin with a whole one, four cuts are tried.
        """
        voice = next((token for token in self.tokens if self.decode([token])), None)
        if voice is not None and self.decode([*self.tokens, *[voice] * (_UNFINISHED + 1)]) == text:
            self.ended = True  # a token with a text has none here
            return
        unsaid = len(text) - len(self.said)
        for keep in range(_CONTEXT, _CONTEXT + _UNFINISHED + 1):
            kept = self.tokens[-keep:]
            end = self.decode(kept)
            sound = end[_count_broken(end) :]
            if len(sound) > unsaid and text.endswith(sound):
                self.whole = max(self.whole - (len(self.tokens) - keep), 0)
                self.tokens, self.said, self.limit = kept, end[: len(end) - unsaid], _LIMIT
                return
        self._drop_silent(text, voice)
        self.limit = max(_LIMIT, 2 * len(self.tokens))

    def _drop_silent(self, text: str, voice: int | None) -> None:
        """Leave out tokens without a text, such as padding, of which a model may say any number."""
        if voice is None:
            silent, heard = (
                set(self.tokens),
                list(dict.fromkeys(self.tokens)),
            )  # one of each, until it is known what it is
        else:
            both = self.decode([voice, voice])
            silent = {token for token in set(self.tokens) if self.decode([voice, token, voice]) == both}
            heard = [token for token in self.tokens if token not in silent]
        if self.decode(heard) == text:
            self.whole = sum(token not in silent for token in self.tokens[: self.whole])
            self.tokens = heard


def _count_broken(text: Iterable[str]) -> int:
    """How many signs for broken bytes come first, as far as they may belong to one character."""
    count = 0
    for character in text:
        if character != _BROKEN or count == _UNFINISHED:
            break
        count += 1
    return count


class TextCoder(Protocol):
    """The part of a tokenizer that is used here."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


def check_stop(stop: Sequence[str]) -> None:
    """A UserError for stop strings that cannot be looked for."""
    if isinstance(stop, str):
        raise UserError(f"stop={stop!r} is a text, not a list of texts. Write [{stop!r}].")
    for string in stop:
        if not isinstance(string, str) or not string:
            raise UserError(f"A stop string is {string!r}; it must be a text of at least one character. Leave it out.")


def watch_mask(vocab_size: int, decode_token: Callable[[int], str], stop: tuple[str, ...]) -> np.ndarray:
    """Which tokens can complete a stop string, bool [V]: only after these has the text to be looked at.

    `decode_token` gives the text of a token as it stands inside a text, with its blank; see `token_texts`. A token with a
    part of a character counts if a stop string has characters of several bytes.
    """
    check_stop(stop)
    mask = np.zeros(vocab_size, bool)
    if not stop:
        return mask
    texts = [decode_token(token) for token in range(vocab_size)]
    longest = max(map(len, texts), default=0)
    # The end of a stop string may stand at the start of a token, behind a blank that the first token of a text loses.
    ends = {string[i:] for string in stop for i in range(max(len(string) - longest, 0), len(string))}
    begins = tuple(ends | {f" {end}" for end in ends})
    parts = any(not string.isascii() for string in stop)
    for token, text in enumerate(texts):
        mask[token] = text.startswith(begins) or any(string in text for string in stop) or (parts and _BROKEN in text)
    return mask


def token_texts(tokenizer: TextCoder, vocab_size: int) -> list[str]:
    """The text of each token as it stands inside a text; "" for padding, stop tokens and ids without a token.

    Many tokens are decoded at once with a separator between them, and a block is cut in two where that does not come out.
    """
    separator = _separator(tokenizer)
    if separator is None:  # words with blanks between them: a token has one text
        return [tokenizer.decode([token]) for token in range(vocab_size)]
    texts: list[str] = []
    for start in range(0, vocab_size, _BLOCK):
        texts.extend(_block_texts(tokenizer, range(start, min(start + _BLOCK, vocab_size)), separator))
    return texts


def _separator(tokenizer: TextCoder) -> tuple[int, str] | None:
    """A token that is one rare character wherever it stands; None if the tokenizer has no such token."""
    for character in _SEPARATORS:
        ids = tokenizer.encode(character)
        if ids and tokenizer.decode([ids[-1]] * 3) == character * 3:
            return ids[-1], character
    return None


def _block_texts(tokenizer: TextCoder, tokens: range, separator: tuple[int, str]) -> list[str]:
    mark, character = separator
    ids = [mark]
    for token in tokens:
        ids += [token, mark]
    parts = tokenizer.decode(ids).split(character)
    if len(parts) == len(tokens) + 2:
        return parts[1:-1]
    if len(tokens) > 1:
        middle = len(tokens) // 2
        return [
            *_block_texts(tokenizer, tokens[:middle], separator),
            *_block_texts(tokenizer, tokens[middle:], separator),
        ]
    # A stop token ends the text, the separator holds itself, a part of a character may swallow the sign for the separator.
    return [tokenizer.decode([mark, tokens[0]]).removeprefix(character)]
