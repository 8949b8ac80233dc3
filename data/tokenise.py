"""Conversations to token examples, once and with a progress bar; `data.packing` lays them out in rows."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import Progress

from data.conversations import Conversation
from framework.batch import TokenExample
from framework.errors import UserError
from models.chat import History, encode_completion
from models.tokenizer import LanguageTokenizer

__all__ = ["tokenise"]


def tokenise(
    conversations: Sequence[Conversation],
    tokenizer: LanguageTokenizer,
    *,
    history: History = "split",
    say: Callable[[str], None] = print,
) -> list[TokenExample]:
    """Token examples of all conversations, in their order; `history` as in `models.chat.History`.

    Shows a bar on a terminal, and says in the end how many there are.

    Raises:
        UserError: a conversation the chat template cannot write, with its file and line.
    """
    began = time.monotonic()
    examples: list[TokenExample] = []
    with Progress(
        console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal
    ) as progress:
        for conversation in progress.track(conversations, description="tokenising"):
            try:
                examples.extend(_examples(conversation, tokenizer, history))
            except UserError as error:
                if not conversation.where:
                    raise
                raise UserError(f"{conversation.where}: {error}") from error
    tokens = sum(len(example.tokens) for example in examples)
    learnt = sum(int(example.learn.sum()) for example in examples)
    text = f"{len(conversations):,} conversations: {tokens:,} tokens, {learnt:,} of them learnt"
    if len(examples) != len(conversations):
        text += f", in {len(examples):,} examples (an example a turn where the chat template changes earlier turns)"
    say(f"{text}, {time.monotonic() - began:.1f} s")
    return examples


def _examples(conversation: Conversation, tokenizer: LanguageTokenizer, history: History) -> list[TokenExample]:
    if conversation.completion is not None:
        return [encode_completion(tokenizer, conversation.prompt, conversation.completion)]
    return tokenizer.chat.encode(conversation.messages, conversation.tools, history=history)
