"""Is every field of a config what its type says? Python does not ask, and a wrong one is found long after the start."""

import collections.abc
import dataclasses
import re
import typing
from collections.abc import Mapping

import typeguard

from framework.config_text import join
from framework.errors import UserError

__all__ = ["check_types"]


def check_types(config: object, path: str = "") -> None:
    """Raises UserError for the first field, of the config or of one inside it, whose value is not of the type it declares."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        hints = typing.get_type_hints(type(config))
        for field in dataclasses.fields(config):
            _check(getattr(config, field.name), hints[field.name], join(path, field.name))
    elif isinstance(config, tuple | list):
        for i, item in enumerate(config):
            check_types(item, join(path, str(i)))
    elif isinstance(config, Mapping):
        for key, item in config.items():
            check_types(item, join(path, str(key)))


def _check(value: object, hint: object, path: str) -> None:
    if typing.get_origin(hint) is collections.abc.Callable and callable(value):
        return  # whoever calls it knows better what is wrong with its arguments
    try:
        typeguard.check_type(value, hint, collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS)
    except typeguard.TypeCheckError as error:
        wanted = re.sub(r"\b[\w.]+\.(?=\w)", "", hint.__name__ if isinstance(hint, type) else str(hint))
        lacks = f" ({reason[1]})" if (reason := re.search(r"because (it .+)", str(error))) else ""
        bare = wanted.startswith("tuple") and not isinstance(value, tuple)
        one = " A tuple of one item is written with a comma: (item,)." if bare else ""
        raise UserError(
            f"{path}={value!r:.60} is of type {type(value).__name__}, but {path} must be {wanted}{lacks}.{one}"
        ) from error
    check_types(value, path)
