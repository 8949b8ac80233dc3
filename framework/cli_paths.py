"""Names, folders and files given on the command line are checked before anything slow starts."""

import os
from pathlib import Path

from framework.errors import UserError

__all__ = ["as_text", "check_file", "check_folder", "check_name"]

_LONGEST = 200  # bytes; file systems take 255, and a run that is moved aside gets a longer name


def check_name(name: str) -> None:
    """A `UserError` for a `--name` that cannot be the name of a run folder."""
    if not name or Path(name).name != name or name.startswith("."):
        raise UserError(f"--name {name!r} is not a folder name: no slashes, no leading dot. --dir says where it goes.")
    if not name.isprintable():
        raise UserError(f"--name {name!r} holds a line break or another invisible character. Leave it out.")
    size = len(name.encode())
    if size > _LONGEST:
        raise UserError(
            f"--name {name[:20]!r}... has {size} bytes; a folder name may have {_LONGEST}. Use a shorter one."
        )


def check_folder(folder: Path, option: str) -> None:
    """A `UserError` if `folder` is not there and cannot be made, or nothing can be written in it."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if _exists(path))
    except OSError as error:
        raise UserError(
            f"{option} {str(folder)[:40]!r} cannot be a folder: {error.strerror}. Give another one."
        ) from None
    if not nearest.is_dir():
        raise UserError(f"{option} {folder} cannot be a folder: {nearest} is a file. Give another one: {option} DIR")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{option} {folder}: nothing can be written in {nearest}. Give another one: {option} DIR")


def check_file(file: Path, option: str, default_name: str) -> None:
    """A `UserError` if `file` is a folder, or cannot be written."""
    size = len(os.fsencode(file.name))
    if size > _LONGEST:  # what is written beside it while it is made has a longer name
        raise UserError(
            f"{option} {file.name[:20]!r}... has a name of {size} bytes; one may have {_LONGEST}. Use a shorter one."
        )
    try:
        is_folder = _exists(file) and file.is_dir()
    except OSError as error:
        raise UserError(f"{option} {str(file)[:40]!r} cannot be a file: {error.strerror}. Give another one.") from None
    if is_folder:
        raise UserError(f"{option} {file} is a folder, not a file. Type: {option} {file / default_name}")
    if _exists(file) and not os.access(file, os.W_OK):
        raise UserError(f"{option} {file} cannot be written: you may not change this file. Give another one.")
    try:
        check_folder(file.parent, option)
    except UserError as error:
        raise UserError(f"{option} {file} cannot be written. {error}") from None


def as_text(path: Path | str) -> str:
    """A path to print: bytes that are not UTF-8 are shown as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _exists(path: Path) -> bool:
    """As `Path.exists`, which in some Pythons says of a name that is too long that it is free."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
