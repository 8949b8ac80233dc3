"""Conversations as token batches: what supervised fine-tuning reads."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from data.conversations import Conversation, ConversationSource
from data.packing import PackedStream, TooLong, packed_stream
from data.tokenise import tokenise
from framework.batch import TokenBatch
from framework.sample import Sample
from models.chat import History
from models.tokenizer import LanguageTokenizer

__all__ = ["ChatBatches", "Chats"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chats:
    """Conversations of any source, written by the tokenizer's chat template and packed into rows. Implements `TokenSource`."""

    source: ConversationSource
    """Where they come from: `ConversationFile`, `StdlibDocs`, or a config of your own with the same `build`."""
    packing: bool = True
    """Several conversations a row; False: one a row, the rest of it padding."""
    too_long: TooLong = "truncate"
    """What happens to a conversation longer than a row: cut on the right, or dropped. Both are counted."""
    history: History = "split"
    """For templates that rewrite earlier turns (Qwen3 drops their thoughts): an example a turn, the last turn, or an error."""

    def build(
        self, tokenizer: LanguageTokenizer, *, rows: int, length: int, seed: int, say: Callable[[str], None] = print
    ) -> "ChatBatches":
        """Read, tokenise and plan everything; says how much there is.

        Raises:
            UserError: conversations that cannot be read or written as tokens, or none that is left.
        """
        conversations = self.source.build(say)

        def stream(part: Sequence[Conversation]) -> PackedStream:
            examples = tokenise(part, tokenizer, history=self.history, say=say)
            return packed_stream(
                examples,
                rows,
                length,
                seed,
                packing=self.packing,
                too_long=self.too_long,
                pad_id=tokenizer.pad_id,
            )

        train = stream(conversations.train)
        say(f"training: {train.stats}")
        heldout = stream(conversations.heldout) if conversations.heldout else None
        return ChatBatches(train, tuple(heldout.one_pass()) if heldout else (), tuple(conversations.heldout), tokenizer)


@dataclasses.dataclass(frozen=True)
class ChatBatches:
    """Made by `Chats.build()`."""

    train: PackedStream
    """`train[step]` is the batch of a step, a function of seed and step alone."""
    heldout: tuple[TokenBatch, ...]
    """Every held-out conversation once."""
    conversations: tuple[Conversation, ...]
    """The held-out ones, to be answered."""
    tokenizer: LanguageTokenizer

    @property
    def epoch_steps(self) -> float:
        """Batches an epoch."""
        return self.train.stats.steps

    def metrics(self) -> Mapping[str, float]:
        """How full the rows are, and the like; the same at every step."""
        return self.train.stats.metrics()

    def prompts(self, count: int) -> list[tuple[Sample, list[int]]]:
        """The first `count` held-out conversations up to their last answer: a sample to show, and the tokens to continue."""
        found: list[tuple[Sample, list[int]]] = []
        for number, conversation in enumerate(self.conversations[:count]):
            if conversation.completion is not None:
                tokens = [*self.tokenizer.start_ids, *self.tokenizer.encode(conversation.prompt)]
                sample = Sample(
                    task="heldout", question=conversation.prompt, answer=conversation.completion, seed=number
                )
            else:
                last = max(i for i, message in enumerate(conversation.messages) if message["role"] == "assistant")
                before = conversation.messages[:last]
                if not before:  # it begins with its last answer: nothing to ask
                    continue
                tokens = self.tokenizer.chat.prompt(before, conversation.tools)
                question = "\n".join(f"{message['role']}: {message['content']}" for message in before)
                answer = conversation.messages[last]["content"]
                sample = Sample(task="heldout", question=question, answer=answer, seed=number)
            if tokens:
                found.append((sample, list(tokens)))
        return found
