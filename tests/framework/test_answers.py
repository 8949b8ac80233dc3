"""A file of answers is continued after any stop, and never by another command than the one that began it."""

import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.answers import AnswersFile
from framework.errors import UserError
from framework.prompts import Prompt, read_prompts

SETTINGS = {"model": "a@1", "temperature": 1.0, "stop": ["\n"]}


def prompts(n=6):
    return [Prompt(i, {"prompt": f"p{i} é", "id": [i, None]}, "prompt") for i in range(1, n + 1)]


def answer(file, prompt):
    file.add(prompt, [f"r{prompt.line} 🎈\n"], {"tokens": [prompt.line]})


def write(path, order, *, n=6, finish=True, **changed):
    by_line = {p.line: p for p in prompts(n)}
    with AnswersFile(path, prompts(n), SETTINGS | changed) as file:
        for line in order:
            answer(file, by_line[line])
        if finish:
            file.finish()


def test_a_finished_file_is_in_the_order_of_the_prompts_with_their_other_keys(tmp_path):
    write(tmp_path / "a.jsonl", [3, 1, 2])
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["generation"]["line"] for line in lines] == [1, 2, 3]
    assert lines[1] == {
        "prompt": "p2 é",
        "id": [2, None],
        "responses": ["r2 🎈\n"],
        "generation": {"line": 2, "tokens": [2], "settings": SETTINGS},
    }
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_wherever_a_process_is_killed_the_file_ends_the_same(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("kill")
    write(folder / "whole.jsonl", range(1, 7))
    order = data.draw(st.permutations(range(1, 7)))
    path = folder / "a.jsonl"
    write(path, order, finish=False)
    path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, path.stat().st_size))])
    with AnswersFile(path, prompts(), SETTINGS) as file:
        for prompt in prompts():
            if prompt.line not in file.done:
                answer(file, prompt)
        file.finish()
    assert path.read_bytes() == (folder / "whole.jsonl").read_bytes()


def test_a_last_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, [2, 1], finish=False)
    path.write_bytes(path.read_bytes()[:-1])
    with AnswersFile(path, prompts(), SETTINGS) as file:
        assert (file.done, file.cut_bytes) == ({1, 2}, 0)
        answer(file, prompts()[2])
        file.finish()
    assert [json.loads(line)["generation"]["line"] for line in path.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize(
    "content", ["notes, not answers", '{"a": 1', '{"prompt": "p7', '{"prompt": "p1 é"}', '{\n"a": 1}', "[1]"]
)
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(
        UserError, match=r"Line 1 of .* is no answer of maypole generate.*--overwrite, which first moves"
    ):
        AnswersFile(path, prompts(), SETTINGS)
    assert path.read_text() == content
    with AnswersFile(path, prompts(), SETTINGS, overwrite=True) as file:
        assert file.done == set()
    assert (tmp_path / "a.jsonl.old-1").read_text() == content


def test_a_broken_line_in_the_middle_is_named_and_nothing_is_lost(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, [1, 2, 3])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:20] + "\n" + lines[2])
    before = path.read_bytes()
    with pytest.raises(UserError, match="Line 2 of"):
        AnswersFile(path, prompts(), SETTINGS)
    assert path.read_bytes() == before


def test_other_settings_are_refused_with_all_that_differs(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, [1])
    other = {"model": "a@1", "temperature": 0.5, "stop": ["\n"], "max_length": 9}
    with pytest.raises(UserError) as error:
        AnswersFile(path, prompts(), other)
    said = str(error.value)
    assert "temperature: 1.0 -> 0.5\n" in said
    assert "max_length: none -> 9\n" in said
    assert "stop" not in said
    assert "--overwrite, which first moves" in said
    with AnswersFile(path, prompts(), other, overwrite=True) as file:
        assert file.done == set()


def test_other_prompts_are_refused_with_the_line_that_differs_but_more_of_them_are_welcome(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, [1, 2, 3])
    with AnswersFile(path, prompts(9), SETTINGS) as file:
        assert file.done == {1, 2, 3}
    with pytest.raises(UserError, match="answers line 3, which is not among the prompts any more"):
        AnswersFile(path, prompts(2), SETTINGS)
    changed = prompts()
    changed[1] = Prompt(2, {"prompt": "p2 é", "id": [2, 0]}, "prompt")
    with pytest.raises(UserError, match=r'another line 2 .*\n  "id": \[2, None\] -> \[2, 0\]\n'):
        AnswersFile(path, changed, SETTINGS)


def test_a_second_process_is_refused_while_the_first_one_writes(tmp_path):
    path = tmp_path / "a.jsonl"
    code = (
        "import sys; from pathlib import Path; from framework.answers import AnswersFile\n"
        f"AnswersFile(Path({str(path)!r}), [], {{}})"
    )
    with AnswersFile(path, prompts(), SETTINGS) as file:
        answer(file, prompts()[0])
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "is being written by another process" in done.stderr
        answer(file, prompts()[1])
    with AnswersFile(path, prompts(), SETTINGS) as file:
        assert file.done == {1, 2}


def test_a_full_disk_is_said_and_the_file_goes_on_when_there_is_room(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.jsonl"
    code = f"""
import resource, signal
from pathlib import Path
from framework.answers import AnswersFile
from framework.errors import UserError
from framework.prompts import Prompt
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
prompts = [Prompt(i, {{"prompt": f"p{{i}} é", "id": [i, None]}}, "prompt") for i in range(1, 7)]
with AnswersFile(Path({str(path)!r}), prompts, {SETTINGS!r}) as file:
    try:
        for prompt in prompts:
            file.add(prompt, [f"r{{prompt.line}} 🎈\\n"], {{"tokens": [prompt.line]}})
    except UserError as error:
        print(error)
"""
    assert resource
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large. What is there is kept" in done.stdout
    with AnswersFile(path, prompts(), SETTINGS) as file:
        assert file.cut_bytes > 0
        for prompt in prompts():
            if prompt.line not in file.done:
                answer(file, prompt)
        file.finish()
    write(tmp_path / "whole.jsonl", range(1, 7))
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_many_answers_in_any_order_are_sorted(tmp_path):
    order = list(range(1, 2001))
    random.Random(0).shuffle(order)
    write(tmp_path / "a.jsonl", order, n=2000)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["generation"]["line"] for line in lines] == list(range(1, 2001))


def test_prompts_are_read_with_the_line_they_stand_on(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a", "x": 1}\n\n{"question": "b", "tokens": 3}\r\n{"messages": []}\n{"tokens": [1]}')
    assert [(p.line, p.kind) for p in read_prompts(file)] == [
        (1, "prompt"),
        (3, "question"),
        (4, "messages"),
        (5, "tokens"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "Line 2 of .* is not JSON"),
        ('{"prompt": "a", "x": ' + "[" * 100_000, "Line 2 of .* is not JSON .*it is nested too deeply"),
        ('{"prompt": "a", "x": ' + "[" * 101 + "]" * 101 + "}", "nested too deeply, in more than 100 levels"),
        ("[1]", "Line 2 of .* is no JSON object"),
        ('{"text": "a", "id": 1}', "has none of the keys messages, prompt, question, tokens. It has: text, id"),
        ('{"prompt": ["a"]}', '"prompt" must be a text'),
        ('{"messages": "a"}', '"messages" must be a list such as'),
        ('{"prompt": "a", "tokens": [1]}', "has 'prompt' and 'tokens', and only one can be the prompt"),
        ('{"prompt": "a", "responses": []}', 'has the key "responses", where the answer goes. Rename it'),
    ],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path, line, said):
    file = tmp_path / "p.jsonl"
    file.write_text(f'{{"prompt": "a"}}\n{line}\n')
    with pytest.raises(UserError, match=said):
        read_prompts(file, reserved=("responses",))


def test_what_is_deep_but_not_too_deep_comes_back_as_it_was(tmp_path):
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "[[{", "x": ' + '[{"a": ' * 49 + "1" + "}]" * 49 + "}\n" + '{"prompt": "' + "[" * 999 + '"}'
    )
    found = read_prompts(tmp_path / "p.jsonl")
    for _ in range(2):
        with AnswersFile(tmp_path / "a.jsonl", found, SETTINGS) as file:
            for prompt in found:
                if prompt.line not in file.done:
                    answer(file, prompt)
        assert len(file.done) == 2


def test_an_answer_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(UserError, match=r"Line 1 of .* is no answer"):
        AnswersFile(tmp_path / "a.jsonl", prompts(), SETTINGS)


def test_a_link_to_the_answers_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "disk" / "b.jsonl")
    write(tmp_path / "a.jsonl", [3, 1, 2])
    assert (tmp_path / "a.jsonl").is_symlink()
    lines = (tmp_path / "disk" / "b.jsonl").read_text().splitlines()
    assert [json.loads(line)["generation"]["line"] for line in lines] == [1, 2, 3]


def test_a_file_that_cannot_be_read_or_written_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"--out .* cannot be written: (File exists|Not a directory)\. Give another one"
    ):
        AnswersFile(tmp_path / "file" / "a.jsonl", prompts(), SETTINGS)
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_prompts(tmp_path)


def test_a_file_without_prompts_says_what_a_line_looks_like(tmp_path):
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"holds no prompts\. Each line looks like"):
        read_prompts(tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="There is no file"):
        read_prompts(tmp_path / "none.jsonl")
