"""Names for the two stories about objects (SynLogic, arXiv:2505.19641, tasks `object_counting` and `object_properties`)."""

from collections.abc import Mapping

__all__ = ["CATEGORIES", "CATEGORY_OF", "PEOPLE", "PLURALS"]

PEOPLE = (
    "aunt", "uncle", "brother", "sister", "mother", "father", "grandmother", "grandfather", "cousin", "friend", "colleague",
    "neighbor", "teacher", "coach", "roommate", "boss", "dentist",
)  # fmt: skip

# The first names of a category are the short ones: small instances use only those. Every name is in one category only.
CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "fruit": (
        "plums", "figs", "limes", "pears", "apples", "bananas", "oranges", "grapes", "melons", "mangoes", "peaches",
        "cherries", "lemons", "apricots", "papayas", "guavas", "nectarines", "pineapples", "strawberries", "raspberries",
        "blueberries", "grapefruits", "pomegranates", "tangerines",
    ),
    "animal": (
        "cats", "dogs", "owls", "hens", "ducks", "goats", "horses", "rabbits", "hamsters", "turtles", "lizards", "frogs",
        "parrots", "falcons", "ferrets", "beavers", "hedgehogs", "geckos", "iguanas", "donkeys", "monkeys", "alpacas",
        "pigeons", "tarantulas",
    ),
    "car": (
        "jeeps", "taxis", "coupes", "sedans", "minivans", "hatchbacks", "roadsters", "convertibles", "limousines", "race cars",
        "sports cars", "police cars", "rental cars", "vintage cars", "hybrid cars", "electric cars", "station wagons",
    ),
    "electronic": (
        "phones", "drones", "radios", "laptops", "tablets", "routers", "scanners", "printers", "monitors", "keyboards",
        "headphones", "projectors", "e-readers", "smartwatches", "hard drives", "game consoles", "graphics cards",
        "digital cameras",
    ),
    "book": (
        "comics", "atlases", "novels", "diaries", "cookbooks", "textbooks", "biographies", "dictionaries", "encyclopedias",
        "songbooks", "travel guides", "history books", "poetry books", "picture books", "detective stories", "fairy tales",
        "grammar books",
    ),
    "furniture": (
        "beds", "desks", "sofas", "chairs", "tables", "stools", "benches", "dressers", "armchairs", "wardrobes", "recliners",
        "cupboards", "bookcases", "ottomans", "nightstands", "coffee tables", "rocking chairs",
    ),
    "clothes": (
        "hats", "coats", "socks", "shirts", "scarves", "gloves", "skirts", "dresses", "jackets", "sweaters", "hoodies",
        "trousers", "raincoats", "swimsuits", "pajamas", "sandals", "sneakers", "suits",
    ),
}  # fmt: skip
PLURALS: Mapping[str, str] = {
    "fruit": "fruits",
    "animal": "animals",
    "car": "cars",
    "electronic": "electronic devices",
    "book": "books",
    "furniture": "pieces of furniture",
    "clothes": "pieces of clothing",
}
CATEGORY_OF: Mapping[str, str] = {name: category for category, names in CATEGORIES.items() for name in names}
