"""Messages of a conversation: what they look like, which are learnt, and where the template that writes them is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framework.errors import UserError

__all__ = ["Message", "check_messages", "is_learnt", "read_template"]

Message = Mapping[str, Any]
"""`role` and `content`, and what else the template reads. `train: false` or `weight: 0` leaves a turn out of the loss."""


def is_learnt(message: Message) -> bool:
    """Whether the message is a turn of the assistant that is not left out."""
    for key in ("train", "weight"):
        value = message.get(key)
        if value is not None and value not in (0, 1):
            raise UserError(
                f"{key}={value!r} of a message must be true or false (1 or 0): a turn is learnt or it is not."
            )
    return (
        message.get("role") == "assistant" and message.get("train") in (None, 1) and message.get("weight") in (None, 1)
    )


def check_messages(messages: Sequence[Message]) -> None:
    """Raises UserError for what no template can write: no messages, no role, a content that is no text, half a character."""
    if not messages:
        raise UserError(
            "The conversation is empty. Give at least one message, such as {'role': 'user', 'content': 'Hi'}."
        )
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise UserError(
                f"Message {number} is {message!r:.80}. Write a role and a content, such as "
                "{'role': 'user', 'content': 'Hi'}."
            )
        content = message.get("content")
        if isinstance(content, str):
            try:
                content.encode()
            except UnicodeEncodeError as error:
                raise UserError(
                    f"Message {number} ({message['role']}) holds {content[error.start]!r} at character {error.start + 1}, half "
                    "of a character, which cannot be written as tokens. Give the text in UTF-8, or leave this character out."
                ) from error
        elif content is not None and not isinstance(content, list):  # a list of parts is for the template to read
            raise UserError(
                f"Message {number} ({message['role']}) has the content {content!r:.60}, which is not a text. Write a text."
            )


def read_template(value: str) -> str:
    """The template `value` is, or the text of the file it names. What has a brace is a template."""
    if "{" in value:
        return value
    path = Path(value).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"chat_template={value!r} is neither a Jinja template (it has no brace) nor a file in {Path.cwd()}. "
            "Give the path of a .jinja file or the template itself."
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"The chat template {value} is not in UTF-8 ({error}). Save it in UTF-8.") from error
    except OSError as error:  # a folder, a file that may not be read, a name that is too long
        raise UserError(
            f"chat_template={value!r:.80} has no brace, as a Jinja template has, and cannot be read as a file: {error.strerror}. "
            "Give the path of a .jinja file or the template itself."
        ) from error
