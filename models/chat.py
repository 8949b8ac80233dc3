"""Conversations as token ids, and which of the ids are learnt: what the assistant says, its end-of-turn token included.

    chat = tokenizer.chat
    chat.prompt(messages)             # ids to sample an answer from
    chat.encode(messages)             # training examples: ids and which of them are learnt

The template (Jinja, run in the sandbox of transformers) writes the text. A turn of the assistant is what the template adds to
the prompt of that turn, so training sees the tokens that sampling sees; a template with {% generation %} marks it itself.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jinja2.exceptions import TemplateError

from framework.batch import TokenExample
from framework.errors import UserError
from models.messages import Message, check_messages, is_learnt

if TYPE_CHECKING:
    from models.tokenizer import LanguageTokenizer

__all__ = ["ChatTemplate", "Encoded", "History", "encode_completion"]

History = Literal["split", "last", "error"]
"""For templates that show an earlier turn otherwise than it was said (Qwen3 drops its thoughts): one example a turn, each
learnt as it is sampled ("split"); the last turn only ("last"); or a UserError ("error")."""

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_SHOWN = 40  # characters of a text to show in an error, more than a prompt writes of an answer


class Encoded(NamedTuple):
    """Token ids of a text, and the characters (start, stop) that each stands for."""

    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]]


class _Rendered(NamedTuple):
    text: str
    spans: Sequence[tuple[int, int]]  # what {% generation %} marks, in characters


class _Turn(NamedTuple):
    """Where a turn stands in the text, in characters."""

    prompt: int  # sampling reads up to here
    start: int  # learnt from here, which is the end of the prompt unless {% generation %} says otherwise
    stop: int


class ChatTemplate:
    """Made by a tokenizer, its property `chat`."""

    def __init__(
        self,
        template: str,
        *,
        encode: Callable[[str], Encoded],
        end_ids: Sequence[int],
        special_ids: Sequence[int],
        anchor: str,
        values: Mapping[str, Any],
        source: str,
        shown: Mapping[str, str] | None = None,
    ):
        """`end_ids` end a turn, `special_ids` are control tokens, `anchor` is the text of one of them; `values` are variables of
        the template such as `eos_token`, and `shown` what `render` shows for some of them; `source` says in errors where the
        template comes from."""
        self.template, self._anchor, self._shown = template, anchor, dict(shown or {})
        self._encode, self._values, self._source = encode, dict(values), source
        self._end_ids, self._special_ids = frozenset(end_ids), frozenset(special_ids) | frozenset(end_ids)
        self._marks = bool(_GENERATION.search(template))

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None, *, prompt: bool = False
    ) -> str:
        """The text of a conversation; with `prompt`, up to where the assistant begins to answer."""
        text = self._render(messages, tools, prompt).text
        for written, shown in self._shown.items():
            text = text.replace(written, shown)
        return text

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None) -> list[int]:
        """Ids to sample the assistant's next turn from. Raises UserError for messages the template refuses."""
        return list(self._encode(self._render(messages, tools, True).text).ids)

    def encode(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        history: History = "split",
    ) -> list[TokenExample]:
        """Training examples of a conversation: one, or one a turn where the template changes the history (see `History`).

        Messages after the last turn to learn are left out, nothing is learnt from them.

        Raises:
            UserError: no turn to learn, messages the template refuses, or a template whose turns cannot be told apart.
        """
        if history not in ("split", "last", "error"):
            raise UserError(f"history={history!r} is not known. Use 'split', 'last' or 'error'.")
        turns = [i for i, message in enumerate(messages) if is_learnt(message)]
        if turns and turns[0] == 0 and not self._marks:
            turns = turns[1:]  # nothing was asked, so there is no prompt that this would be the answer to
        if not turns:
            raise UserError(
                "The conversation has no turn to learn: no assistant message after another message, or all of them are left out "
                "by train: false. Add an assistant message, or leave the conversation out."
            )
        messages = messages[: turns[-1] + 1]
        whole = self._render(messages, tools, False)
        parts = {i: self._render(messages[: i + 1], tools, False) for i in turns[:-1]} | {turns[-1]: whole}
        changed = next((i for i in turns if not whole.text.startswith(parts[i].text)), None)
        if changed is None:
            example = self._example(messages, turns, parts, tools)
            if example is not None:
                return [example]
        elif history == "error":
            at = _first_difference(whole.text, parts[changed].text)
            raise UserError(
                f"The chat template of {self._source} changes message {changed + 1} once the conversation goes on: "
                f"{_shown(parts[changed].text, at)} becomes {_shown(whole.text, at)}. Use history='split' to learn every turn "
                "as it is sampled, or history='last' to learn the last turn only."
            )
        # Nothing was changed if only letters at a border made single examples of the turns: then all of them are learnt.
        chosen = turns[-1:] if history == "last" and changed is not None else turns
        examples = (self._example(messages[: i + 1], [i], parts, tools) for i in chosen)
        return [example for example in examples if example is not None]

    @functools.cached_property
    def end_of_turn(self) -> int | None:
        """The control token that the template ends a turn of the assistant with, if it does.

        None as well for a template that refuses a conversation of one question and one answer.
        """
        said = "qqq"
        try:
            text = self._render(
                [{"role": "user", "content": "a"}, {"role": "assistant", "content": said}], None, False
            ).text
        except UserError:
            return None  # a template for something else; encode and prompt say what it refuses
        ids, offsets = self._encode(text)
        behind = text.rfind(said) + len(said)
        ends = [i for i, (start, _) in zip(ids, offsets, strict=True) if start >= behind and i in self._special_ids]
        return ends[0] if ends else None

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, prompt: bool
    ) -> _Rendered:
        # Transformers takes half a second to import; a run without conversations does not wait for it.
        from transformers.utils.chat_template_utils import render_jinja_template

        check_messages(messages)
        chat = [{k: v for k, v in message.items() if k not in ("train", "weight")} for message in messages]
        try:
            texts, spans = render_jinja_template(
                conversations=[chat],  # pyright: ignore[reportArgumentType]
                tools=list(tools) if tools else None,  # pyright: ignore[reportArgumentType]
                chat_template=self.template,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=self._marks,
                **self._values,
            )
        except (TemplateError, TypeError, KeyError) as error:
            roles = ", ".join(str(message["role"]) for message in messages)
            raise UserError(
                f"The chat template of {self._source} cannot write these messages ({roles}): {error}. "
                "Change the messages, or give another template with chat_template=."
            ) from error
        return _Rendered(texts[0], spans[0] if spans else ())  # pyright: ignore[reportArgumentType]  # the hints there say str

    def _turns(
        self,
        messages: Sequence[Message],
        turns: Sequence[int],
        parts: Mapping[int, _Rendered],
        tools: Sequence[Mapping[str, Any]] | None,
    ) -> list[_Turn]:
        """Where the turns stand in the text of `messages`, which ends with the last of them."""
        text = parts[turns[-1]].text
        prompts = [self._render(messages[:i], tools, True).text if i else "" for i in turns]
        if self._marks:
            marked = parts[turns[-1]].spans
            said = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
            if len(marked) != len(said):
                raise UserError(
                    f"The chat template of {self._source} marks {len(marked)} parts with {{% generation %}} for {len(said)} "
                    f"turns of the assistant. Give a template that marks each turn once with chat_template=."
                )
            spans = [marked[said.index(i)] for i in turns]
            return [
                _Turn(len(prompt) if text.startswith(prompt) and len(prompt) <= start else start, start, stop)
                for prompt, (start, stop) in zip(prompts, spans, strict=True)
            ]
        for i, prompt in zip(turns, prompts, strict=True):
            after = parts[i].text
            if not after.startswith(prompt):
                at = _first_difference(prompt, after)
                raise UserError(
                    f"The chat template of {self._source} does not continue its own prompt, so the answer in message {i + 1} "
                    f"cannot be found: the prompt has {_shown(prompt, at)} where the conversation has {_shown(after, at)}. "
                    "Put {% generation %} .. {% endgeneration %} around the answer in a copy of the template, and give it with "
                    "chat_template=."
                )
        return [_Turn(len(prompt), len(prompt), len(parts[i].text)) for i, prompt in zip(turns, prompts, strict=True)]

    def _check_nothing_lost(self, message: Message, number: int, written: str) -> None:
        """Whether all that the assistant says in a turn to learn is in the text. Templates may change blanks."""
        bare = "".join(written.split())
        for key in ("content", "reasoning_content"):
            said = message.get(key)
            if isinstance(said, str) and "".join(said.split()) not in bare:
                raise UserError(
                    f"The chat template of {self._source} leaves out some of the {key} of message {number}, {said!r:.60}: "
                    f"it writes {written!r:.60}. What is not written cannot be learnt. Give a template that writes it with "
                    "chat_template=, or take it out of the data."
                )

    def _example(
        self,
        messages: Sequence[Message],
        turns: Sequence[int],
        parts: Mapping[int, _Rendered],
        tools: Sequence[Mapping[str, Any]] | None,
    ) -> TokenExample | None:
        """The turns as one example: a token that stands for any character of a turn is learnt.

        The ids are those of the whole text, if they begin with the ids of every turn's prompt. Letters on both sides of a
        border may be one token, which sampling never meets: then a single turn is tokenised apart from its prompt, and
        several are None, for they have to be single examples.
        """
        text = parts[turns[-1]].text
        places = self._turns(messages, turns, parts, tools)
        for i, place in zip(turns, places, strict=True):
            # A prompt may already write how an answer begins, such as <think>.
            self._check_nothing_lost(messages[i], i + 1, text[max(place.start - _SHOWN, 0) : place.stop])
        ids, offsets = self._encode(text)
        for prompt in {place.prompt for place in places}:
            own = self._encode(text[:prompt])
            if list(ids[: len(own.ids)]) != list(own.ids):
                if len(turns) > 1:
                    return None
                # As it stands behind a control token: at the start of a text some tokenizers add a blank.
                behind = self._encode(self._anchor + text[prompt:])
                shift = prompt - len(self._anchor)
                rest = [(i, (a + shift, b + shift)) for i, (a, b) in zip(*behind, strict=True) if b > len(self._anchor)]
                ids, offsets = [*own.ids, *(i for i, _ in rest)], [*own.offsets, *(place for _, place in rest)]
        learn = np.zeros(len(ids), bool)
        token = 0
        for _, start, stop in places:
            while token < len(ids) and offsets[token][1] <= start:
                token += 1
            first = token
            while token < len(ids) and offsets[token][0] < stop:
                token += 1
            last = token
            if self._marks:  # the end of the turn may stand behind the mark, but sampling has to end
                last += token < len(ids) and ids[token] in self._end_ids
            else:
                last = self._without_blank_end(text, ids, offsets, first, last)
            learn[first:last] = True
        return TokenExample(np.asarray(ids, np.int32), learn)

    def _without_blank_end(
        self, text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]], first: int, last: int
    ) -> int:
        """Blanks behind the end-of-turn token separate the messages; without such a token they are the end of the turn."""
        end = last
        while end > first and ids[end - 1] not in self._special_ids:
            start, stop = offsets[end - 1]
            if text[start:stop].strip():
                return last
            end -= 1
        return end if end > first else last


def encode_completion(tokenizer: "LanguageTokenizer", prompt: str, completion: str) -> TokenExample:
    """A plain prompt and its continuation, without a template: the completion and an end token are learnt.

    The text is tokenised as one where the prompt's own tokens stay as they are, else in two parts: the prompt has the tokens
    that sampling starts from. Control tokens written in the texts count as such where the tokenizer takes them so.
    """
    start = [*tokenizer.start_ids, *tokenizer.encode(prompt)]
    whole = [*tokenizer.start_ids, *tokenizer.encode(prompt + completion)]
    if whole[: len(start)] != start:
        whole = [*start, *tokenizer.encode(completion)]
    if len(whole) == len(start) or whole[-1] not in tokenizer.stop_ids:
        whole.append(tokenizer.eos_id)
    return TokenExample(np.asarray(whole, np.int32), np.arange(len(whole)) >= len(start))


def _first_difference(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _shown(text: str, at: int) -> str:
    """`text` around the place `at`."""
    start = max(at - _SHOWN // 2, 0)
    return f"{'..' if start else ''}{text[start : start + _SHOWN]!r}{'..' if start + _SHOWN < len(text) else ''}"
