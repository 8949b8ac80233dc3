"""The classic ciphers of the SynLogic task `cipher` (arXiv:2505.19641): encryption, decryption, and the rule in words.

A step is a JSON object such as `{"cipher": "caesar", "shift": 3}`. Letter ciphers keep spaces; the two transpositions take
texts without spaces; the two codes write a letter as a token, tokens apart by a space and words by " / ".
"""

import random
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["CODES", "LETTERS", "TRANSPOSITIONS", "decrypt", "draw_step", "encrypt", "layout", "rule", "short_rule"]

Step = Mapping[str, Any]

A_TO_Z = string.ascii_uppercase
LETTERS = ("caesar", "atbash", "affine", "vigenere", "keyword")
TRANSPOSITIONS = ("rail", "columnar")
CODES = ("polybius", "morse")
_UNITS = (3, 5, 7, 9, 11, 15, 17, 19, 21, 23, 25)  # what has an inverse modulo 26, without 1
_SIDE = 6  # of the square: 26 letters and 10 digits, so that no two letters share a cell
_SIGNALS = tuple(f"{i:0{n}b}".translate({48: ".", 49: "-"}) for n in range(1, 5) for i in range(2**n))


def draw_step(rng: random.Random, cipher: str, keys: Sequence[str]) -> dict[str, Any]:
    """A step with a random key; `keys` are the words to take keywords from."""
    step: dict[str, Any] = {"cipher": cipher}
    if cipher == "caesar":
        step["shift"] = rng.randint(1, 25)
    elif cipher == "affine":
        step |= {"a": rng.choice(_UNITS), "b": rng.randrange(26)}
    elif cipher == "rail":
        step["rails"] = rng.randint(2, 4)
    elif cipher == "morse":
        step["signals"] = rng.sample(_SIGNALS, 26)
    elif cipher != "atbash":
        step["key"] = rng.choice(keys)
    return step


def encrypt(step: Step, text: str) -> str:
    if step["cipher"] in TRANSPOSITIONS:
        return "".join(text[i] for i in _order(step, len(text)))
    if step["cipher"] in CODES:
        codes = _codes(step)
        return " / ".join(" ".join(codes[char] for char in word) for word in text.split(" "))
    return _substitute(text, _shifted(step, 1))


def decrypt(step: Step, text: str) -> str:
    if step["cipher"] in TRANSPOSITIONS:
        places = {place: i for i, place in enumerate(_order(step, len(text)))}
        return "".join(text[places[i]] for i in range(len(text)))
    if step["cipher"] in CODES:
        letters = {code: char for char, code in _codes(step).items()}
        return " ".join("".join(letters[code] for code in word.split(" ")) for word in text.split(" / "))
    return _substitute(text, _shifted(step, -1))


def layout(step: Step, text: str) -> list[str]:
    """What is written down on the way from `text` to its encryption by a transposition: the rows, or the columns."""
    rows: list[str] = []
    order = _order(step, len(text))
    starts = [i for i in range(len(order)) if i == 0 or order[i] < order[i - 1]]
    for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
        rows.append("".join(text[i] for i in order[begin:end]))
    return rows


def rule(step: Step) -> str:
    """How this step encrypts, in words."""
    return _RULES[step["cipher"]](step)


def short_rule(step: Step) -> str:
    """The step in a few characters: `caesar 3`."""
    if step["cipher"] == "morse":
        return "morse " + ",".join(step["signals"])
    return " ".join(str(value) for value in step.values())


_RULES: Mapping[str, Callable[[Step], str]] = {
    "caesar": lambda step: (
        f"Caesar cipher: every letter moves {step['shift']} place{'s' * (step['shift'] > 1)} forward in the alphabet, and A "
        "follows after Z. Spaces stay."
    ),
    "atbash": lambda _: "Atbash: A becomes Z, B becomes Y, C becomes X and so on, Z becomes A. Spaces stay.",
    "affine": lambda step: (
        f"Affine cipher: with the letters numbered from A = 0 to Z = 25, letter number x becomes letter number "
        f"({step['a']} * x + {step['b']}) mod 26. Spaces stay."
    ),
    "vigenere": lambda step: (
        f"Vigenère cipher with the key {step['key']}: the key is written again and again above the letters, and every letter "
        "moves forward by the number of its key letter (A = 0 to Z = 25), where A follows after Z. Spaces stay and use "
        "up no key letter."
    ),
    "keyword": lambda step: (
        f"Keyword substitution: write the letters of {step['key']}, each only once, and then the remaining letters in "
        "alphabetical order. The 26 letters of this line replace A, B, C and so on to Z. Spaces stay."
    ),
    "rail": lambda step: (
        f"Rail fence: the text is written in a zigzag over {step['rails']} rows, down and up again, beginning at the top; "
        "then the rows are read one after the other, from the top."
    ),
    "columnar": lambda step: (
        f"Columnar transposition: the text is written in rows under the letters of {step['key']} (the last row may be "
        "short); then the columns are read downwards, in alphabetical order of their key letters, equal ones from the left."
    ),
    "polybius": lambda step: (
        f"Polybius square: the letters of {step['key']}, each only once, then the remaining letters in alphabetical order, "
        "then the digits 0 to 9 fill a 6 x 6 square row by row. A letter becomes its row number and its column number "
        "(from 1), such as 25. A space separates letters and ' / ' separates words."
    ),
    "morse": lambda step: (
        "Signal table: "
        + ", ".join(f"{char} {code}" for char, code in zip(A_TO_Z, step["signals"], strict=True))
        + ". Every letter becomes its signal. A space separates letters and ' / ' separates words."
    ),
}


def _keyed(key: str) -> str:
    return "".join(dict.fromkeys(key + A_TO_Z))


def _codes(step: Step) -> dict[str, str]:
    if step["cipher"] == "morse":
        return dict(zip(A_TO_Z, step["signals"], strict=True))
    return {char: f"{i // _SIDE + 1}{i % _SIDE + 1}" for i, char in enumerate(_keyed(step["key"]))}


def _order(step: Step, length: int) -> list[int]:
    """The places of the text in the order in which a transposition reads them."""
    if step["cipher"] == "rail":
        period = 2 * (step["rails"] - 1)
        return sorted(range(length), key=lambda i: (min(i % period, period - i % period), i))
    width = len(step["key"])
    return sorted(range(length), key=lambda i: (step["key"][i % width], i % width, i))


def _substitute(text: str, image: Callable[[int, str], str]) -> str:
    out, letters = [], 0
    for char in text:
        out.append(char if char == " " else image(letters, char))
        letters += char != " "
    return "".join(out)


def _shifted(step: Step, sign: int) -> Callable[[int, str], str]:
    """The image of a letter under a letter cipher (sign 1) or its inverse (-1); the first argument counts letters."""
    name = step["cipher"]
    if name == "caesar":
        return lambda _, char: A_TO_Z[(A_TO_Z.index(char) + sign * step["shift"]) % 26]
    if name == "vigenere":
        key = [A_TO_Z.index(char) for char in step["key"]]
        return lambda i, char: A_TO_Z[(A_TO_Z.index(char) + sign * key[i % len(key)]) % 26]
    if name == "affine":
        images = "".join(A_TO_Z[(step["a"] * x + step["b"]) % 26] for x in range(26))
    elif name == "atbash":
        images = A_TO_Z[::-1]
    elif name == "keyword":
        images = _keyed(step["key"])
    else:
        raise ValueError(f"{name!r} is not a cipher. Use one of {LETTERS + TRANSPOSITIONS + CODES}.")
    table = dict(zip(A_TO_Z, images, strict=True) if sign == 1 else zip(images, A_TO_Z, strict=True))
    return lambda _, char: table[char]
