import dataclasses
import enum
import functools
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from framework.config import Spec, list_experiments, load_experiment
from framework.config_text import diff, diff_json, to_json, to_text
from framework.errors import UserError
from framework.overrides import apply_overrides

TOY = Path(__file__).parent / "fixtures" / "toy_experiment.py"

GOLDEN = """\
Toy
  name = "toy"
  seed = 0
  steps = 3
  rollout = Rollout
    group_size = 8
    temperature = 1.0
    stop = ("</answer>",)
    limits = (0.2, 0.4)
    cap = None
  loss = KLCov
    top_frac = 0.002
    beta = 1.0
  task = Sudoku
    name = "sudoku"
    holes = 3
  extra = None
  reward = toy_experiment.py:reward
  rewards = (toy_experiment.py:reward,)
  arms = 2 items
    0 = Arm
      name = "clipped"
      loss = Clipped
        beta = 1.0
    1 = Arm
      name = "kl-cov"
      loss = KLCov
        top_frac = 0.002
        beta = 1.0
  weights = {easy: 1.0}
  kind = "compact"
  shuffle = False
  bound = inf
  fail = ""
"""


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Odd:
    colour: Colour = Colour.RED
    size: np.float32 = np.float32(0.5)
    dtype: type = np.float32
    nan: float = math.nan
    part: functools.partial = functools.partial(max, 1, key=abs)
    path: Path = Path("a/b")
    empty: tuple = ()
    thing: object = None


def test_text_is_golden():
    assert to_text(load_experiment(str(TOY)).config) == GOLDEN


def test_json_survives_a_file_and_differs_in_nothing():
    for config in (load_experiment(str(TOY)).config, Odd()):
        form = to_json(config)
        assert diff_json(form, json.loads(json.dumps(form, allow_nan=False))) == []
    assert to_json(load_experiment(str(TOY)).config)["loss"] == {"__type__": "KLCov", "top_frac": 0.002, "beta": 1.0}


def test_json_of_unusual_values():
    form = to_json(Odd())
    assert form["colour"] == "Colour.RED"
    assert form["size"] == 0.5
    assert form["dtype"] == "numpy:float32"
    assert form["nan"] == "nan"
    assert form["part"]["func"] == "builtins:max"
    assert form["path"] == "a/b"


def test_a_live_object_in_a_config_is_refused_by_name():
    with pytest.raises(UserError, match="field thing holds a object"):
        to_json(Odd(thing=object()))


def test_diff_lists_fields_and_replaced_configs():
    toy = load_experiment(str(TOY)).config
    changed = apply_overrides(toy, ["--rollout.group_size", "16", "--arms.0.loss.beta", "2", "--rollout.cap", "1"])
    assert diff(toy, changed) == [
        "rollout.group_size: 8 -> 16",
        "rollout.cap: None -> 1.0",
        "arms.0.loss.beta: 1.0 -> 2.0",
    ]
    swapped = dataclasses.replace(toy, loss=toy.arms[0].loss, arms=toy.arms[:1])
    assert diff(toy, swapped)[0] == "loss: KLCov(top_frac=0.002, beta=1.0) -> Clipped(beta=1.0)"
    assert diff(toy, swapped)[1].startswith("arms: (Arm(")
    assert diff(toy, toy) == []


def test_a_file_is_loaded_under_a_name_of_its_own():
    loaded = load_experiment("fixtures/toy_experiment.py:smoke", root=TOY.parent.parent)
    assert (loaded.config.steps, loaded.name, loaded.source) == (1, "toy_experiment-smoke", f"{TOY}:smoke")
    assert loaded.module.__name__.startswith("maypole_user_toy_experiment_")
    assert sys.modules[loaded.module.__name__] is loaded.module
    assert load_experiment(str(TOY)).source == f"{TOY}:config"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("no_such_paper", ["no experiment called 'no_such_paper'", "Available:", "path/to/mine.py:config"]),
        (f"{TOY}:smok", ["no experiment called smok", "Did you mean smoke?", "It has: config, smoke"]),
        (f"{TOY}:reward", ["reward in", "is a function, not an experiment"]),
        (f"{TOY.parent}/toy_experimnt.py", ["no file", "Did you mean toy_experiment.py"]),
        (f"{TOY.parent}/", ["no file"]),
        (":config", ["names no experiment"]),
    ],
)
def test_a_wrong_spec_says_what_there_is(spec, words):
    with pytest.raises(UserError) as caught:
        load_experiment(spec)
    for word in words:
        assert word in str(caught.value)


def test_an_import_error_shows_the_users_line(tmp_path):
    file = tmp_path / "mine.py"
    for text, words in {
        "import os\nimport no_such_thing\n": ["line 2", "import no_such_thing", "ModuleNotFoundError"],
        "x = (\n": ["SyntaxError", "line 1"],
        "def f():\n    return 1 / 0\nf()\n": ["line 3", "line 2", "ZeroDivisionError"],
        "x = 1\n": ["It holds none at all", "config = MyExperiment(...)"],
    }.items():
        file.write_text(text)
        with pytest.raises(UserError) as caught:
            load_experiment(str(file))
        for word in words:
            assert word in str(caught.value)
        assert "importlib" not in str(caught.value)


def test_a_users_file_can_import_the_file_beside_it(tmp_path):
    (tmp_path / "beside_mine.py").write_text(TOY.read_text())
    (tmp_path / "mine.py").write_text("from beside_mine import *\nconfig = Toy(seed=7)\n")
    assert load_experiment(str(tmp_path / "mine.py")).config.seed == 7


def test_specs_give_run_names_without_an_import():
    assert Spec.parse("entropy-mechanism").name == "entropy_mechanism"
    assert Spec.parse("entropy_mechanism:smoke").name == "entropy_mechanism-smoke"
    assert Spec.parse("a/my file.py:config").name == "my_file"


def test_listing_reads_variants_from_source(tmp_path, monkeypatch):
    import experiments

    (tmp_path / "toy_paper.py").write_text(TOY.read_text().replace("import json", "import no_such_thing_at_all"))
    (tmp_path / "helpers.py").write_text('"""Not an experiment."""\nx = 1\n')
    (tmp_path / "_hidden.py").write_text(TOY.read_text())
    monkeypatch.setattr(experiments, "__path__", [str(tmp_path)])
    (info,) = list_experiments()
    assert (info.name, info.variants) == ("toy_paper", ("config", "smoke"))
    assert info.doc.startswith("A toy experiment without jax")
    with pytest.raises(UserError, match=r"Did you mean toy_paper\?"):
        load_experiment("toy_papers")
