import dataclasses
import inspect

import pytest

from framework.cli_help import field_docs
from framework.config import load_experiment
from framework.errors import UserError
from framework.overrides import apply_overrides, config_fields, replace_path

TOY = "tests/framework/fixtures/toy_experiment.py"


@pytest.fixture(scope="module")
def toy(request):
    return load_experiment(TOY, root=request.config.rootpath).config


@pytest.mark.parametrize(
    ("argv", "path", "value"),
    [
        ("--seed -3", "seed", -3),
        ("--seed=4", "seed", 4),
        ("--rollout.group_size 16", "rollout.group_size", 16),
        ("--rollout.group-size 16", "rollout.group_size", 16),
        ("--rollout.temperature 1e-3", "rollout.temperature", 1e-3),
        ("--rollout.cap 3", "rollout.cap", 3.0),
        ("--rollout.cap none", "rollout.cap", None),
        ("--rollout.stop a b", "rollout.stop", ("a", "b")),
        ("--rollout.limits -0.1 2", "rollout.limits", (-0.1, 2.0)),
        ("--loss.top_frac 0.5", "loss.top_frac", 0.5),
        ("--task.holes 9", "task.holes", 9),
        ("--arms.0.loss.beta 2", "arms.0.loss.beta", 2.0),
        ("--arms.kl-cov.loss.top_frac 0.1", "arms.1.loss.top_frac", 0.1),
        ("--weights.easy 0.5", "weights.easy", 0.5),
        ("--kind english", "kind", "english"),
        ("--shuffle", "shuffle", True),
        ("--shuffle true", "shuffle", True),
        ("--bound -inf", "bound", float("-inf")),
        ("--seed 1 --seed 2", "seed", 2),
    ],
)
def test_an_override_sets_one_field_and_no_other(toy, argv, path, value):
    changed = apply_overrides(toy, argv.split())
    assert changed == replace_path(toy, path, value)
    assert {f.path: f.value for f in config_fields(changed)}.get(path, value) == value
    assert type(changed.loss) is type(toy.loss)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--rollout.groupsize 3", ["no field rollout.groupsize", "Did you mean rollout.group_size?", "temperature"]),
        ("--group_size 3", ["no field group_size", "Did you mean rollout.group_size?"]),
        ("--arms.kl_cow.loss.beta 3", ["arms.kl_cow", "arms.kl_cov", "0, 1, clipped, kl_cov"]),
        ("--arms.clipped.loss.top_frac 1", ["no field arms.clipped.loss.top_frac", "Clipped has: beta"]),
        ("--seed.x 3", ["no field seed.x", "seed is 0"]),
        ("--rollout.group_size many", ["--rollout.group_size expects int, got 'many'", "It was 8"]),
        ("--rollout.group_size", ["expects int, got 'nothing'"]),
        ("--rollout.limits 1", ["2 values: float, float", "got '1'"]),
        ("--rollout.cap x", ["float or None", "got 'x'"]),
        ("--kind french", ["one of compact, english"]),
        ("--shuffle maybe", ["True or False", "maybe"]),
        ("--reward f", ["--reward is a function (toy_experiment.py:reward)", "mine.py", "maypole run"]),
        ("--rewards.0 f", ["--rewards.0 is a function"]),
        ("--extra 3", ["--extra is fixed (None)", "mine.py"]),
        ("--loss Clipped", ["--loss holds a whole config", "--loss.beta", "replace(config, loss=...)"]),
        ("16 --seed 3", ["What should '16' change?"]),
    ],
)
def test_a_wrong_override_says_what_is_wrong_and_what_to_type(toy, argv, words, capsys):
    with pytest.raises(UserError) as caught:
        apply_overrides(toy, argv.split())
    for word in words:
        assert word in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_replace_path_takes_whole_configs_and_names_near_fields(toy):
    clipped = toy.arms[0].loss
    assert replace_path(toy, "loss", clipped) == dataclasses.replace(toy, loss=clipped)
    with pytest.raises(UserError, match=r"Did you mean rollout\.temperature\?"):
        replace_path(toy, "rollout.temprature", 2.0)


def test_functions_are_fixed_and_protocol_fields_are_open(toy):
    hints = {field.path: field.hint for field in config_fields(toy)}
    assert hints["reward"] is hints["rewards.0"] is hints["extra"] is None
    assert hints["task.holes"] is int
    assert hints["arms.1.loss.beta"] is float


def test_field_docs_come_from_strings_and_comments(toy):
    assert field_docs(type(toy.rollout)) == {"group_size": "Answers for each question."}
    assert field_docs(type(toy.loss))["top_frac"] == "fraction of the tokens"
    assert "steps" in field_docs(type(toy))
    assert inspect.getdoc(type(toy)) == "A toy."
