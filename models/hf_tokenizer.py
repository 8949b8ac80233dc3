"""Tokenizers of published models, read from a folder or the Hugging Face hub.

    tokenizer = HFTokenizer(path="checkpoints/Qwen3-0.6B").build()
    tokenizer.encode("plain text"), tokenizer.chat.prompt([{"role": "user", "content": "Hi"}])

Code from a checkpoint is never run, and nothing is unpickled.
"""

import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framework.errors import UserError
from models.chat import ChatTemplate, Encoded
from models.messages import read_template
from models.tokenizer import checked_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["HFTokenizer", "PretrainedTokenizer"]

_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_NOW = re.compile(r"""strftime_now\(\s*(?:"([^"]*)"|'([^']*)')""")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HFTokenizer:
    """A tokenizer in Hugging Face format."""

    path: str
    """Folder with a tokenizer.json, or a hub id such as Qwen/Qwen3-0.6B."""
    chat_template: str | None = None
    """A Jinja template, or a file that holds one, instead of the tokenizer's own."""
    template_values: Mapping[str, str | int | float | bool] = dataclasses.field(default_factory=dict)
    """Variables for the template, such as {"enable_thinking": False} for Qwen3."""
    date: str = "2024-07-26"
    """What templates that ask for today's date (Llama 3.1) are told, so that a run resumed tomorrow sees the same tokens."""

    def build(self) -> "PretrainedTokenizer":
        """Read the tokenizer.

        Raises:
            UserError: no tokenizer at the path, or one that cannot be used, with what was found.
        """
        try:
            date = datetime.date.fromisoformat(self.date)
        except ValueError as error:
            raise UserError(f"tokenizer.date={self.date!r} is not a date. Write it like 2024-07-26.") from error
        own = read_template(self.chat_template) if self.chat_template is not None else None
        folder = _folder(self.path)
        tokenizer = _load(self.path, folder)
        template = own if own is not None else tokenizer.chat_template
        if isinstance(template, Mapping):  # several by name, one of them for use with tools
            template = template.get("default")
        if own is not None:
            tokenizer.chat_template = own  # so that it is saved with the tokenizer
        return PretrainedTokenizer(
            tokenizer,
            source=self.path,
            generation_stops=_generation_stops(self.path, folder),
            chat_template=template,
            template_values=self.template_values,
            date=date,
        )


class PretrainedTokenizer:
    """Made by `HFTokenizer.build()`. Implements `LanguageTokenizer`.

    Control tokens written in a text are read as such, as in transformers. Padding is the tokenizer's own token or, where it has
    none, the end token: what stands on padding is never read, neither in training nor in sampling.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        *,
        source: str,
        generation_stops: Sequence[int],
        chat_template: str | None,
        template_values: Mapping[str, Any],
        date: datetime.date,
    ):
        self.tokenizer = tokenizer
        self._source, self._template, self._date = source, chat_template, date
        self._values = dict(template_values)
        eos = tokenizer.eos_token_id
        if eos is None and not generation_stops:
            raise UserError(
                f"The tokenizer of {source} has no end token, so nothing it is used for would end. Set eos_token in its "
                'tokenizer_config.json, for example "eos_token": "<|endoftext|>".'
            )
        pad = tokenizer.pad_token_id
        self.eos_id: int = generation_stops[0] if eos is None else eos  # pyright: ignore[reportAttributeAccessIssue]
        self.pad_id: int = self.eos_id if pad is None else pad  # pyright: ignore[reportAttributeAccessIssue]
        self._ends = tuple(dict.fromkeys((self.eos_id, *generation_stops)))
        self.vocab_size = len(tokenizer)
        self.start_ids = _start_ids(tokenizer)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The end token, those of generation_config.json, and the one the chat template ends the assistant's turn with.

        A base model lacks the last one in its files, but has to stop at it once it has learnt to chat.
        """
        return self._stops

    @functools.cached_property
    def _stops(self) -> tuple[int, ...]:
        end = self.chat.end_of_turn if self._template is not None else None
        return tuple(dict.fromkeys((*self._ends, *([] if end is None else [end]))))

    @property
    def chat(self) -> ChatTemplate:
        """Conversations to ids. Raises UserError if there is no template."""
        return self._chat

    @functools.cached_property  # behind a property, which is what a protocol can ask for
    def _chat(self) -> ChatTemplate:
        if self._template is None:
            raise UserError(
                f"The tokenizer of {self._source} has no chat template (base models often have none). Give one with "
                "chat_template=, the file of the template of a chat model of the same family, or use prompt and completion texts."
            )
        added = self.tokenizer.added_tokens_decoder.items()
        return ChatTemplate(
            _at_date(self._template, self._date),
            encode=self._encode_chat,
            end_ids=self._ends,
            special_ids=[i for i, token in added if token.special],
            anchor=str(self.tokenizer.convert_ids_to_tokens(self.eos_id)),
            values={
                **self.tokenizer.special_tokens_map,
                "date_string": self._date.strftime("%d %b %Y"),
                **self._values,
            },
            source=self._source,
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without start and end tokens. Raises UserError for half of a character (a lone surrogate)."""
        return self.tokenizer(checked_text(text), add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]

    def _encode_chat(self, text: str) -> Encoded:
        out = self.tokenizer(checked_text(text), add_special_tokens=False, return_offsets_mapping=True)
        return Encoded(out["input_ids"], out["offset_mapping"])  # pyright: ignore[reportArgumentType]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` up to the first stop id; padding is left out, other control tokens are shown.

        Ids past the vocabulary, which the spare rows of a model's matrix stand for, have no text.
        """
        kept: list[int] = []
        stops = self.stop_ids
        for i in map(int, ids):
            if i in stops:
                break
            if i != self.pad_id and i < self.vocab_size:
                kept.append(i)
        return self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)  # pyright: ignore[reportReturnType]

    def save(self, path: Path) -> None:
        """Write a folder that transformers and `HFTokenizer` open, chat template included."""
        self.tokenizer.save_pretrained(str(path))


def _folder(path: str) -> Path | None:
    """The local folder `path` is, or None for a hub id."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        found = sorted(p.name for p in folder.iterdir())
        if not any(name in found for name in _VOCABULARIES):
            raise UserError(
                f"The folder {path} holds no tokenizer (one of {', '.join(_VOCABULARIES)}). Found: "
                f"{', '.join(found[:20]) or 'nothing'}. Copy the tokenizer's files there, or name another folder."
            )
        return folder
    if folder.exists():
        raise UserError(f"tokenizer.path={path!r} is a file. Give the folder that holds it: {str(folder.parent)!r}.")
    if path.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path):
        raise UserError(f"tokenizer.path={path!r}: there is no such folder in {Path.cwd()}.")
    return None


def _load(path: str, folder: Path | None) -> "PreTrainedTokenizerFast":
    """The tokenizer as its tokenizer.json says.

    AutoTokenizer may choose a class by the type of the model, and that class cuts texts its own way: in a folder with a Qwen2
    model and another family's tokenizer it gives other ids than the file. So it is asked only where there is no such file.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # slow to import

    try:
        if _file("tokenizer.json", path, folder) is not None:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder or path))
        else:
            tokenizer = AutoTokenizer.from_pretrained(str(folder or path), trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        advice = "that its files are complete" if folder else "the path, or for a hub id the name and the network"
        raise UserError(f"The tokenizer of {path} cannot be read: {first} Check {advice}.") from error
    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer of {path} has no tokenizer.json, which is needed to tell which token stands for which character. "
            "Convert it once where its own library is installed: "
            f"python -c \"from transformers import AutoTokenizer as A; A.from_pretrained('{path}').save_pretrained('fast')\""
        )
    return tokenizer


def _file(name: str, path: str, folder: Path | None) -> Path | None:
    """A file of the folder or, where there is none, of the hub; None if it has no such file."""
    if folder is not None:
        return folder / name if (folder / name).is_file() else None
    from transformers.utils.hub import cached_file

    found = cached_file(path, name, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None


def _generation_stops(path: str, folder: Path | None) -> list[int]:
    """eos_token_id of generation_config.json, a number or a list; empty without the file."""
    file = _file("generation_config.json", path, folder)
    if file is None:
        return []
    try:
        value = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} is not a JSON object ({error}). Restore the file, or remove it.") from error
    stops = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(stop, int) for stop in stops):
        raise UserError(
            f"{file}: eos_token_id={value!r} must be a token id or a list of them. Correct it, or remove it."
        )
    return stops


def _start_ids(tokenizer: "PreTrainedTokenizerFast") -> tuple[int, ...]:
    """What the tokenizer puts before a plain text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)  # pyright: ignore[reportArgumentType]
    return tuple(full[:start])  # pyright: ignore[reportArgumentType, reportReturnType]


def _at_date(template: str, date: datetime.date) -> str:
    """The template with its clock stopped: a macro of the same name hides the function that reads the time."""
    if "strftime_now" not in template:
        return template
    days = {form: date.strftime(form) for form in {a or b for a, b in _NOW.findall(template)}}
    return f"{{%- macro strftime_now(format) -%}}{{{{ {days!r}[format] }}}}{{%- endmacro -%}}{template}"
