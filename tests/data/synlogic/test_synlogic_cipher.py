"""Claims about the task `cipher`: its verdicts, and its ciphers against naive ones written here."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_checks import check_all, examples

from data.synlogic.cipher import LEVELS, Cipher
from data.synlogic.cipher_rules import CODES, LETTERS, TRANSPOSITIONS, decrypt, encrypt, short_rule
from framework.sample import Sample

TASK = Cipher()
A_TO_Z = string.ascii_uppercase
HELLO = Sample(task="cipher", question="", answer="[[HELLO WORLD]]")  # a published record has no more than this


@pytest.mark.slow
def test_every_shared_claim():
    check_all(TASK, seeds=60, tiny_chars=60)


# The verdicts of card section 37 and of rule V of section 7, then its consequences.
@pytest.mark.parametrize(
    ("answer", "official", "strict"),
    [
        ('[["HELLO WORLD"]]', True, True),
        ("[[HELLO WORLD]]", False, False),
        ('[["hello world"]]', False, False),
        ("[['HELLO WORLD']]", True, True),
        ('```python\n[["HELLO WORLD"]]\n```', True, True),
        ('Here:\n```python\n[["HELLO WORLD"]]\n```\nDone.', True, True),
        ('```python\n[["X"]]\n```\n```python\n[["HELLO WORLD"]]\n```', True, True),
        ('```python\n[["HELLO WORLD"]]\n```\n```python\n[["X"]]\n```', False, False),
        ('```\n[["HELLO WORLD"]]\n```', False, False),
        ('The answer is [["HELLO WORLD"]]', False, False),
        ('[["HELLOWORLD"]]', False, False),
        ('[["HELLO WORLD "]]', False, False),
        ('["HELLO WORLD"]', False, False),
        ('[("HELLO WORLD",)]', False, False),
        ('[["HELLO WORLD"], []]', False, False),
        ('[["HELLO WORLD"],]  # done', True, True),
        ('[["HELLO " "WORLD"]]', True, True),
        ('[[u"HELLO WORLD"]]', True, True),
        ('[[b"HELLO WORLD"]]', False, False),
        ("HELLO WORLD", False, True),
        (" HELLO WORLD\n", False, True),
        ("HELLO WORLD.", False, False),
        ('"HELLO WORLD"', False, False),
        ("", False, False),
    ],
)
def test_verdicts(answer, official, strict):
    assert TASK.verify(HELLO, answer, "official") is official
    assert TASK.verify(HELLO, answer, "strict") is strict


def naive(step, plain):
    """Encryption as the rule tells it, one letter at a time."""
    name = step["cipher"]
    if name == "rail":
        rails = ["" for _ in range(step["rails"])]
        row, down = 0, True
        for char in plain:
            rails[row] += char
            down = row == 0 or (down and row < len(rails) - 1)
            row += 1 if down else -1
        return "".join(rails)
    if name == "columnar":
        width = len(step["key"])
        rows = [plain[i : i + width] for i in range(0, len(plain), width)]
        out = ""
        for letter in sorted(set(step["key"])):
            for j in range(width):
                if step["key"][j] == letter:
                    out += "".join(row[j] for row in rows if j < len(row))
        return out
    line = ""
    for char in step.get("key", "") + A_TO_Z:
        if char not in line:
            line += char
    out, count = [], 0
    for char in plain:
        if char == " ":
            out.append("/" if name in CODES else " ")
            continue
        x = ord(char) - ord("A")
        if name == "caesar":
            out.append(A_TO_Z[(x + step["shift"]) % 26])
        elif name == "atbash":
            out.append(A_TO_Z[25 - x])
        elif name == "affine":
            out.append(A_TO_Z[(step["a"] * x + step["b"]) % 26])
        elif name == "vigenere":
            out.append(A_TO_Z[(x + ord(step["key"][count % len(step["key"])]) - ord("A")) % 26])
        elif name == "keyword":
            out.append(line[x])
        elif name == "polybius":
            out.append(f"{line.index(char) // 6 + 1}{line.index(char) % 6 + 1}")
        else:
            out.append(step["signals"][x])
        count += 1
    return " ".join(out) if name in CODES else "".join(out)


@pytest.mark.parametrize("level", LEVELS)
def test_the_answer_is_what_naive_ciphers_give(level):
    for seed in range(150):
        sample = TASK.generate(seed, LEVELS[level], "english")
        text, given, stored = "", sample.meta["message"], sample.answer[2:-2]
        text, target = (given, stored) if sample.meta["action"] == "encrypt" else (stored, given)
        for step in sample.meta["steps"]:
            text = naive(step, text)
        assert text == target
        assert stored == stored.strip()
        assert given in sample.question


STEPS = st.one_of(
    st.builds(lambda n: {"cipher": "caesar", "shift": n}, st.integers(1, 25)),
    st.just({"cipher": "atbash"}),
    st.builds(lambda a, b: {"cipher": "affine", "a": a, "b": b}, st.sampled_from((3, 5, 11, 25)), st.integers(0, 25)),
    st.builds(
        lambda name, key: {"cipher": name, "key": key},
        st.sampled_from(("vigenere", "keyword", "columnar", "polybius")),
        st.text(A_TO_Z, min_size=1, max_size=9),
    ),
    st.builds(lambda n: {"cipher": "rail", "rails": n}, st.integers(2, 6)),
)


@settings(deadline=None)
@given(STEPS, st.lists(st.text(A_TO_Z, min_size=1, max_size=8), min_size=1, max_size=4))
def test_decryption_undoes_encryption(step, words):
    plain = ("" if step["cipher"] in TRANSPOSITIONS else " ").join(words)
    secret = encrypt(step, plain)
    assert secret == naive(step, plain)
    assert decrypt(step, secret) == plain


def test_known_values_of_classic_ciphers():
    assert encrypt({"cipher": "caesar", "shift": 3}, "CAT") == "FDW"
    assert encrypt({"cipher": "vigenere", "key": "LEMON"}, "ATTACKATDAWN") == "LXFOPVEFRNHR"
    assert encrypt({"cipher": "affine", "a": 5, "b": 8}, "AFFINE CIPHER") == "IHHWVC SWFRCP"
    assert encrypt({"cipher": "rail", "rails": 3}, "WEAREDISCOVEREDFLEEATONCE") == "WECRLTEERDSOEEFEAOCAIVDEN"
    assert encrypt({"cipher": "columnar", "key": "ZEBRA"}, "WEAREDISCOVERED") == "EODASREIERCEWDV"
    assert encrypt({"cipher": "keyword", "key": "ZEBRAS"}, "FLEE AT ONCE") == "SIAA ZQ LKBA"


def test_every_cipher_is_drawn_in_both_directions():
    samples = [TASK.generate(seed, LEVELS["hard"]) for seed in range(400)]
    seen = {(step["cipher"], sample.meta["action"]) for sample in samples for step in sample.meta["steps"]}
    assert seen == {(c, a) for c in (*LETTERS, *TRANSPOSITIONS, *CODES) for a in ("encrypt", "decrypt")}
    assert all(len(sample.meta["steps"]) == 2 for sample in samples)
    assert short_rule({"cipher": "affine", "a": 5, "b": 8}) == "affine 5 8"


# Each kind changes the text of the answer, or how it is written; the checker below knows what is right.
CONTENT = {
    "same": lambda t: t,
    "first letter changed": lambda t: ("Q" if t[0] != "Q" else "Z") + t[1:],
    "last letter dropped": lambda t: t[:-1],
    "letter doubled": lambda t: t[0] + t,
    "reversed": lambda t: t[::-1],
    "neighbours swapped": lambda t: t[1] + t[0] + t[2:],
    "lower case": str.lower,
    "title case": str.title,
    "spaces dropped": lambda t: t.replace(" ", ""),
    "spaces doubled": lambda t: t.replace(" ", "  "),
    "space before": lambda t: " " + t,
    "full stop": lambda t: t + ".",
    "twice": lambda t: t + t,
    "empty": lambda t: "",
}
WRITING = {
    "double quotes": ('[["{}"]]', True),
    "single quotes": ("[['{}']]", True),
    "spaces around": (' [ [ "{}" ] ] ', True),
    "fence": ('```python\n[["{}"]]\n```', True),
    "prose and fence": ('So:\n```python\n[["{}"]]\n```\n', True),
    "tuple": ('[("{}",)]', False),
    "one bracket": ('["{}"]', False),
    "three brackets": ('[[["{}"]]]', False),
    "two texts": ('[["{}","A"]]', False),
    "prose": ('I think [["{}"]]', False),
    "other fence": ('```\n[["{}"]]\n```', False),
    "box": ('\\boxed{{[["{}"]]}}', False),
    "unquoted": ("[[{}]]", False),
    "no end": ('[["{}"]', False),
}


@settings(max_examples=examples(250), deadline=None)
@given(
    st.integers(0, 300), st.sampled_from(list(LEVELS)), st.sampled_from(list(CONTENT)), st.sampled_from(list(WRITING))
)
def test_perturbed_answers_are_judged_right(seed, level, content, writing):
    sample = TASK.generate(seed, LEVELS[level], "english")
    right = sample.answer[2:-2]
    text = CONTENT[content](right)
    form, readable = WRITING[writing]
    expected = readable and text == right
    assert TASK.verify(sample, form.format(text), "official") is expected
    assert TASK.verify(sample, form.format(text), "strict") is expected
    assert TASK.verify(sample, text, "strict") is (text.strip() == right)  # the short form
    assert TASK.verify(sample, text, "official") is False
