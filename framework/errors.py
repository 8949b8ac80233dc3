"""The one exception that means: the person at the keyboard can fix this."""

__all__ = ["UserError"]


class UserError(ValueError):
    """A mistake in a command, a config or a file.

    The message says what was given, why it cannot work and what to type instead. The command line prints it without a
    traceback and exits with 2.
    """
