"""Published records of `object_counting` (SynLogic, arXiv:2505.19641): what their question asks for."""

import re

__all__ = ["read_question"]

_NAMES = {
    "fruits": "fruit",
    "animals": "animal",
    "cars": "car",
    "electronics": "electronic",
    "books": "book",
    "furniture items": "furniture",
    "clothing items": "clothes",
    "水果": "fruit",
    "动物": "animal",
    "汽车": "car",
    "电子产品": "electronic",
    "书籍": "book",
    "家具": "furniture",
    "衣物": "clothes",
}
_NAMED = "|".join(_NAMES)
_QUESTION = re.compile(
    rf"(?:number of |How many |多少个|拥有的)({_NAMED})(?:(?: and |和)({_NAMED}))?(?: that| do|？|的数量差)"
)


def read_question(text: str) -> list[str]:
    """The kind of question ("sum", "difference", "total") and its categories, from an english or chinese prompt."""
    asked = list(_QUESTION.finditer(text))
    if not asked:
        raise ValueError("object_counting: the metadata have no query, and the question cannot be read.")
    last = asked[-1]
    categories = [_NAMES[name] for name in last.groups() if name]
    if len(categories) == 1:
        return ["total", *categories]
    around = text[max(0, last.start() - 60) : last.end() + 20]
    return ["difference" if "absolute" in around or "绝对值" in around else "sum", *categories]
