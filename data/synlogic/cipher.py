"""Cipher: encrypt or decrypt a message by stated rules (SynLogic, arXiv:2505.19641, task `cipher`).

The paper's repository has a verifier for this task but no generator: the ciphers are ours, see `cipher_rules`. The reference
answer is stored as `[[TEXT]]`, as in the published data. Compact form: `enc caesar 3: CAT` (or `dec`, steps apart by `|`)
with the short answer `FDW`. The official verifier wants the Python literal `[["TEXT"]]`, in the last ```python fence or as the
whole text, compared exactly; so the stored form itself, without quotes, is wrong. The strict verifier has nothing to repair;
it accepts the bare text as well (its one widening).
"""

import dataclasses
import random
import re
from collections.abc import Iterator, Mapping

from data.synlogic import base, parse
from data.synlogic.boards import block
from data.synlogic.cipher_rules import (
    CODES,
    LETTERS,
    TRANSPOSITIONS,
    decrypt,
    draw_step,
    encrypt,
    layout,
    rule,
    short_rule,
)
from data.synlogic.words import WORDS
from framework.sample import Sample

__all__ = ["Cipher", "CipherParams"]

# Python reads these prefixes of a text, and they change nothing where no backslash and no brace follows.
_PREFIX = re.compile(r"\A((?:[\s([]|#[^\n]*\n)*)[rRuUfF](?=[\"'])")
_KEYS = tuple(word.upper() for word in WORDS if 4 <= len(word) <= 7)
_ENGLISH = (
    "{0} the message below.\n\n{1}\n\nMessage: {2}\n\nAnswer with the resulting text in capital letters, in double quotes and "
    'double square brackets: [["TEXT"]]',
    "This is an exercise in classic cryptography: {3} a text.\n{1}\nThe text: {2}\n"
    'Write your result, in capitals, as [["RESULT"]] (a quoted text inside two pairs of square brackets).',
    'Read how a cipher works, then {3} "{2}".\n\n{1}\n\n'
    'The answer must have the form [["YOUR TEXT"]], with the quotes, and in capital letters.',
)

Steps = list[dict[str, object]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CipherParams(base.Params):
    ciphers: tuple[str, ...]
    words: tuple[int, ...]  # one is drawn: how many words the message has
    max_letters: int = 12  # of a word
    steps: int = 1  # 2: the output of one cipher is the input of another


LEVELS: Mapping[str, CipherParams] = {
    "tiny": CipherParams(ciphers=("caesar", "atbash"), words=(1,), max_letters=5),
    "easy": CipherParams(ciphers=(*LETTERS, "rail"), words=(1, 2, 3)),
    "normal": CipherParams(ciphers=(*LETTERS, *TRANSPOSITIONS, *CODES), words=(3, 4, 5)),
    "hard": CipherParams(ciphers=(*LETTERS, *TRANSPOSITIONS, *CODES), words=(4, 5, 6, 7), steps=2),
}


@dataclasses.dataclass(frozen=True)
class Cipher:
    name: str = "cipher"
    measure: str = "letters to replace or move, summed over the steps"
    json_answer: bool = False
    levels: Mapping[str, CipherParams] = dataclasses.field(default_factory=lambda: LEVELS, hash=False, repr=False)

    def generate(self, seed: int, params: CipherParams, form: base.Form = "compact") -> Sample:
        def draw(rng: random.Random) -> base.Draft | None:
            names = rng.sample(params.ciphers, params.steps)
            names.sort(key=lambda name: name in CODES)  # digits and signals cannot be encrypted further
            if len([name for name in names if name in CODES]) > 1:
                return None
            steps = [draw_step(rng, name, _KEYS) for name in names]
            words = [word.upper() for word in WORDS if len(word) <= params.max_letters]
            gap = "" if any(name in TRANSPOSITIONS for name in names) else " "
            plain = gap.join(rng.choice(words) for _ in range(rng.choice(params.words)))
            secret = plain
            for step in steps:
                secret = encrypt(step, secret)
            if secret == plain:
                return None
            action = rng.choice(("encrypt", "decrypt"))
            message, answer = (plain, secret) if action == "encrypt" else (secret, plain)
            rules = "\n".join(f"Step {i}. {rule(step)}" for i, step in enumerate(steps, start=1))
            rules = (
                "Encryption takes these steps in order:\n" + rules
                if len(steps) > 1
                else "To encrypt: " + rule(steps[0])
            )
            return base.Draft(
                compact=f"{action[:3]} {'|'.join(map(short_rule, steps))}: {message}",
                english=tuple(text.format(action.capitalize(), rules, message, action) for text in _ENGLISH),
                answer=f"[[{answer}]]",
                meta={"action": action, "steps": steps, "message": message},
            )

        return base.emit(self, draw, seed, params, form)

    def solve(self, sample: Sample) -> str:
        return _in_form(sample, _texts(sample)[-1])

    def worked(self, sample: Sample) -> str:
        """The letters one by one, `C>F A>D T>W`; the rows or columns of a transposition; the text after each of two steps."""
        texts, step = _texts(sample), sample.meta["steps"][0]
        if len(texts) > 2:
            return " > ".join(texts)
        plain, secret = texts if sample.meta["action"] == "encrypt" else reversed(texts)
        if step["cipher"] in TRANSPOSITIONS:
            return "/".join(layout(step, plain))
        if step["cipher"] in CODES:
            pairs = zip(plain.replace(" ", ""), secret.replace(" / ", " ").split(" "), strict=True)
            return " ".join(f"{a}={b}" for a, b in dict(pairs).items())
        return " ".join(f"{a}>{b}" for a, b in zip(*texts, strict=True) if a != " ")

    def perturb(self, sample: Sample, seed: int) -> str:
        """The other direction, a step left out, or two letters exchanged."""
        rng = base.rng_for(self.name, "perturb", seed)
        texts = _texts(sample)
        right = texts[-1]

        def candidates() -> Iterator[str]:
            if len(texts) > 2 and rng.random() < 0.5:
                yield _in_form(sample, texts[1])
            if not any(step["cipher"] in CODES for step in sample.meta["steps"]) and rng.random() < 0.5:
                other = "decrypt" if sample.meta["action"] == "encrypt" else "encrypt"
                yield _in_form(sample, _run(other, sample.meta["steps"], sample.meta["message"])[-1])
            places = [i for i, char in enumerate(right) if char not in " /"]
            for _ in range(20):
                i, j = sorted((rng.choice(places), rng.choice(places)))
                if right[i] != right[j]:
                    yield _in_form(sample, right[:i] + right[j] + right[i + 1 : j] + right[i] + right[j + 1 :])
            yield _in_form(sample, right[:-1])

        return base.first_rejected(self, sample, candidates())

    def verify(self, sample: Sample, answer: str, mode: base.Mode = "strict") -> bool:
        if parse.too_long(answer):
            return False
        right = sample.answer[2:-2]
        if mode == "strict" and answer.strip() == right:
            return True
        text = answer.split("```python")[-1].split("```")[0].strip()
        if not any(char in text for char in "\\{}"):
            text = _PREFIX.sub(r"\1", text, count=1)
        try:
            return parse.literal(text) == [[right]]
        except parse.LiteralError:
            return False

    def difficulty(self, sample: Sample) -> float:
        plain = _texts(sample)[-1 if sample.meta["action"] == "decrypt" else 0]
        return float(len(plain.replace(" ", "")) * len(sample.meta["steps"]))

    def show(self, sample: Sample, solved: bool = False) -> str:
        meta = sample.meta
        rules = "\n".join(f"{i}. {rule(step)}" for i, step in enumerate(meta["steps"], start=1))
        shown = (
            f"**{meta['action'].capitalize()}** (the rules tell how to encrypt)\n\n{rules}\n\n{block(meta['message'])}"
        )
        return shown + "\n\n" + block("\n".join(_texts(sample)[1:])) if solved else shown


def _run(action: str, steps: Steps, message: str) -> list[str]:
    """The message and what it becomes after each step."""
    texts = [message]
    for step in steps if action == "encrypt" else reversed(steps):
        texts.append((encrypt if action == "encrypt" else decrypt)(step, texts[-1]))
    return texts


def _texts(sample: Sample) -> list[str]:
    return _run(sample.meta["action"], sample.meta["steps"], sample.meta["message"])


def _in_form(sample: Sample, text: str) -> str:
    return text if sample.meta.get("form") == "compact" else f'[["{text}"]]'
