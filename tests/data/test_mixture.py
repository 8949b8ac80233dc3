"""Training and held-out questions never meet, samples are functions of (seed, index), and mistakes are named."""

import collections

import pytest

from data.mixture import TaskMix, demonstration
from data.synlogic import TASKS, has_format, verifier_reward

ALL = tuple((name, "tiny") for name in TASKS)


def test_train_and_heldout_share_no_question():
    mixture = TaskMix(tasks=ALL).build()
    heldout = {sample.question for sample in mixture.heldout(140, seed=0)}
    assert len(heldout) == 140
    train = {mixture.train_sample(seed, index).question for seed in (0, 1) for index in range(700)}
    assert not heldout & train
    assert all(mixture.is_heldout(question) for question in heldout)
    assert not any(mixture.is_heldout(question) for question in train)


def test_heldout_is_balanced_over_tasks_and_a_function_of_its_seed():
    mixture = TaskMix(tasks=ALL).build()
    samples = mixture.heldout(3 * len(ALL) + 2, seed=5)
    counts = collections.Counter(sample.task for sample in samples)
    assert sorted(counts.values()) == [3] * (len(ALL) - 2) + [4, 4]
    assert samples == TaskMix(tasks=ALL).build().heldout(3 * len(ALL) + 2, seed=5)
    assert samples != mixture.heldout(3 * len(ALL) + 2, seed=6)


def test_a_task_listed_twice_still_gives_different_heldout_questions():
    samples = TaskMix(tasks=(("kukurasu", "tiny"), ("kukurasu", "tiny"))).build().heldout(60, seed=0)
    assert len({sample.question for sample in samples}) == 60


def test_train_samples_are_functions_of_seed_and_index_with_tasks_in_turn():
    mixture = TaskMix(tasks=ALL).build()
    first = [mixture.train_sample(3, index) for index in range(2 * len(ALL))]
    assert first == [mixture.train_sample(3, index) for index in reversed(range(2 * len(ALL)))][::-1]
    assert [sample.task for sample in first] == [name for name, _ in ALL] * 2
    assert first != [mixture.train_sample(4, index) for index in range(2 * len(ALL))]
    sample = first[3]
    assert sample == TASKS[sample.task].generate(sample.seed, TASKS[sample.task].levels[sample.level])


def test_the_english_form_reaches_the_questions():
    sample = TaskMix(tasks=(("mathador", "easy"),), form="english").build().train_sample(0, 0)
    assert "```python" in sample.question


def test_demonstrations_have_the_format_and_noise_spoils_only_the_answer():
    mixture = TaskMix(tasks=ALL).build()
    samples = [mixture.train_sample(0, index) for index in range(140)]
    clean = [demonstration(sample, seed, noise=0.0) for seed, sample in enumerate(samples)]
    wrong = [demonstration(sample, seed, noise=1.0) for seed, sample in enumerate(samples)]
    half = [demonstration(sample, seed, noise=0.5) for seed, sample in enumerate(samples)]
    for sample, right_text, wrong_text, half_text in zip(samples, clean, wrong, half, strict=True):
        assert has_format(right_text)
        assert has_format(wrong_text)
        assert verifier_reward(sample, right_text) == 1.0
        assert verifier_reward(sample, wrong_text) == 0.0
        assert right_text.split("<answer>")[0] == wrong_text.split("<answer>")[0]
        assert half_text in (right_text, wrong_text)
    rewards = [verifier_reward(sample, text) for sample, text in zip(samples, half, strict=True)]
    assert 0.3 < sum(rewards) / len(rewards) < 0.7
    assert half == [demonstration(sample, seed, noise=0.5) for seed, sample in enumerate(samples)]


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (TaskMix(tasks=()), "tasks is empty.*Tasks: arc_agi"),
        (TaskMix(tasks=(("dyck", "tiny"),)), "unknown task: 'dyck'. Did you mean 'dyck_language'.*mathador"),
        (
            TaskMix(tasks=(("mathador", "tinny"),)),
            "unknown level of task 'mathador': 'tinny'. Did you mean 'tiny'.*normal",
        ),
        (TaskMix(tasks=(("mathador", "tiny"),), form="compakt"), "Did you mean 'compact'"),  # type: ignore[arg-type]
        (TaskMix(tasks=(("mathador", "tiny"),), holdout_every=1), "holdout_every=1 leaves no question"),
    ],
)
def test_build_names_the_mistake_and_what_to_type(mix, message):
    with pytest.raises(ValueError, match=message):
        mix.build()


def test_a_space_of_questions_that_is_too_small_is_an_error_with_the_numbers():
    mixture = TaskMix(tasks=(("dyck_language", "tiny"),), holdout_every=200).build()
    with pytest.raises(
        ValueError, match=r"dyck_language/tiny has too few questions: wanted 500 .* found \d+ in \d+ draws"
    ):
        mixture.heldout(500, seed=0)
    with pytest.raises(ValueError, match="n=0"):
        mixture.heldout(0, seed=0)
