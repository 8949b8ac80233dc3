"""Real questions and answers that every Python has: what a function of the standard library does, in the words of its docstring.

    conversations = StdlibDocs().build()
    # user: What does os.path.getsize(filename) do?
    # assistant: Return the size of a file, reported by os.stat().

Some 4,700 pairs of English and code written by people, read from the sources (nothing is imported): enough for a small model
to learn from in minutes, without a download. Versions of Python differ in a few hundred functions; compare on one version.
"""

import ast
import dataclasses
import functools
import re
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from data.conversations import Conversation, Conversations
from data.stdlib_files import stdlib_modules
from data.synlogic.base import stable_int
from framework.errors import UserError

__all__ = ["StdlibDocs"]

_SENTENCE = re.compile(r".*?[.!?](?=\s|$)")
_FEWEST = 500  # a whole library has ten times as many; fewer is a system without its sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class StdlibDocs:
    """One conversation for each function or method with a docstring: its name and parameters, and the first sentence."""

    max_question: int = 70
    """Longest name with parameters, characters."""
    max_answer: int = 100
    """Longest first sentence, characters."""
    heldout_every: int = 10
    """One answer in so many is held out, chosen by a digest of its words: the same in every version that has it."""

    def build(self, say: Callable[[str], None] = print) -> Conversations:
        """Read the sources of the running Python's standard library (a few seconds), and `say` what was found.

        An answer that several functions share is kept once, so that none is on both sides.

        Raises:
            UserError: settings that leave nothing, or a Python without its sources.
        """
        if self.heldout_every < 2:
            raise UserError(
                f"data.source.heldout_every={self.heldout_every} leaves nothing to train on. Use 2 or more."
            )
        root = Path(sysconfig.get_paths()["stdlib"])
        train: list[Conversation] = []
        heldout: list[Conversation] = []
        dropped = {"too long": 0, "not of plain English letters": 0, "with an answer seen before": 0}
        seen: set[str] = set()
        found = 0
        for name, answer, where in _documented(root):
            found += 1
            key = " ".join(re.findall(r"\w+|[^\w\s.]", answer.lower()))
            if len(name) > self.max_question or len(answer) > self.max_answer:
                dropped["too long"] += 1
            elif not (answer.isascii() and re.search(r"[a-zA-Z]{2}", answer)):
                dropped["not of plain English letters"] += 1
            elif key in seen or name in seen:
                dropped["with an answer seen before"] += 1
            else:
                seen |= {key, name}
                asked = {"role": "user", "content": f"What does {name} do?"}
                conversation = Conversation(messages=(asked, {"role": "assistant", "content": answer}), where=where)
                (heldout if stable_int("stdlib", key) % self.heldout_every == 0 else train).append(conversation)
        if found < _FEWEST:
            raise UserError(
                f"{root} holds only {found} documented functions: this Python comes without the sources of its standard library. "
                "Use another Python, or conversations of your own with ConversationFile."
            )
        if not train or not heldout:
            raise UserError(
                f"data.source.max_question={self.max_question} and data.source.max_answer={self.max_answer} leave {len(train)} "
                f"pairs to train on and {len(heldout)} held out, of {found}. "
                "Use data.source.max_question=70 and data.source.max_answer=100."
            )
        left_out = {reason: count for reason, count in dropped.items() if count}
        result = Conversations(train=tuple(train), heldout=tuple(heldout), dropped=left_out)
        say(f"standard library: {result}")
        return result


@functools.cache  # reading takes seconds, and the arms of an experiment ask again
def _documented(root: Path) -> tuple[tuple[str, str, str], ...]:
    """(name with parameters, first sentence of the docstring, file:line), in the order of the files' names."""
    found: list[tuple[str, str, str]] = []
    for path in stdlib_modules(root):
        inside = path.relative_to(root)
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:
            continue  # templates and the like, which are no modules
        module = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
        for name, node in _functions(tree, module):
            text = (ast.get_docstring(node) or "").strip()
            if text:
                first = " ".join(text.split("\n\n")[0].split())
                sentence = _SENTENCE.match(first)
                call = f"{name}({', '.join(_parameters(node))})"
                found.append((call, sentence[0] if sentence else first, f"{path}:{node.lineno}"))
    return tuple(found)


def _functions(
    node: ast.Module | ast.ClassDef, prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}.{child.name}")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}.{child.name}", child


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument.arg for argument in named if argument.arg not in ("self", "cls")]
