"""A batch is a function of (seed, step), streams do not run out, and a user's file is read or refused with the reason."""

import json

import pytest

from data.mixture import TaskMix
from data.pipeline import demonstration_stream, from_jsonl, question_stream, records_stream
from data.synlogic import verifier_reward
from framework.errors import UserError
from framework.sample import Sample

MIXTURE = TaskMix(tasks=(("dyck_language", "tiny"), ("mathador", "tiny"))).build()


@pytest.mark.parametrize("step", [0, 7, 999_999])
def test_a_batch_is_a_function_of_seed_and_step(step):
    stream = question_stream(MIXTURE, 5, seed=3)
    batch = stream[step]
    assert isinstance(batch, list)
    assert len(batch) == 5
    assert all(isinstance(sample, Sample) for sample in batch)
    assert batch == question_stream(MIXTURE, 5, seed=3)[step]
    assert batch != question_stream(MIXTURE, 5, seed=4)[step]
    assert batch == [MIXTURE.train_sample(3, step * 5 + i) for i in range(5)]


def test_reading_order_does_not_matter():
    stream = question_stream(MIXTURE, 4, seed=0)
    forward = [stream[step] for step in range(6)]
    backward = [stream[step] for step in reversed(range(6))]
    assert forward == backward[::-1]
    assert len({sample.question for batch in forward for sample in batch}) > 12


def test_demonstrations_belong_to_the_questions_of_the_same_step():
    questions, pairs = question_stream(MIXTURE, 8, seed=1), demonstration_stream(MIXTURE, 8, seed=1, noise=0.0)
    assert [sample for sample, _ in pairs[12]] == questions[12]
    assert all(verifier_reward(sample, text) == 1.0 for sample, text in pairs[12])
    noisy = demonstration_stream(MIXTURE, 8, seed=1, noise=1.0)
    assert all(verifier_reward(sample, text) == 0.0 for sample, text in noisy[999_999])
    assert noisy[5] == demonstration_stream(MIXTURE, 8, seed=1, noise=1.0)[5]


@pytest.mark.parametrize("build", [question_stream, demonstration_stream])
def test_an_empty_batch_is_an_error(build):
    with pytest.raises(ValueError, match="batch_size=0"):
        build(MIXTURE, 0, 0)


def test_noise_must_be_a_probability():
    with pytest.raises(ValueError, match=r"noise=1.5"):
        demonstration_stream(MIXTURE, 2, 0, noise=1.5)


def records(n: int) -> list[Sample]:
    return [Sample(task="mine", question=str(i)) for i in range(n)]


def test_records_see_every_sample_once_an_epoch_in_a_new_order():
    stream = records_stream(records(12), 4, seed=-1)
    epochs = [[s.question for step in range(3 * e, 3 * e + 3) for s in stream[step]] for e in range(2)]
    assert [sorted(epoch, key=int) for epoch in epochs] == [[str(i) for i in range(12)]] * 2
    assert epochs[0] != epochs[1]
    assert stream[999_999] == records_stream(records(12), 4, seed=-1)[999_999]
    assert [stream[i] for i in range(3)] != [records_stream(records(12), 4, seed=0)[i] for i in range(3)]


def test_a_batch_larger_than_the_data_wraps_and_no_data_is_an_error():
    batch = records_stream(records(3), 7, seed=0)[0]
    assert len(batch) == 7
    assert {sample.question for sample in batch} == {"0", "1", "2"}
    with pytest.raises(ValueError, match="no samples"):
        records_stream([], 2, seed=0)


def write(path, *rows: object):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_jsonl_maps_columns_and_keeps_the_rest_for_the_reward(tmp_path):
    path = write(
        tmp_path / "a.jsonl", {"prompt": "1+1?", "label": 2, "source": "me"}, "", {"prompt": "ü", "label": "x"}
    )
    samples = from_jsonl(path, {"question": "prompt", "answer": "label"}, task="sums")
    assert [(s.question, s.answer, s.task, s.seed) for s in samples] == [
        ("1+1?", "2", "sums", 1),
        ("ü", "x", "sums", 3),
    ]
    assert samples[0].meta == {"source": "me"}
    assert from_jsonl(path, {"question": "prompt"})[0].answer == ""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "answer": "b"}], r"a.jsonl:1 has no field 'question'. Found: 'prompt', 'answer'"),
        ([{"question": "a", "answer": "b"}, {"question": "a"}], r"a.jsonl:2 has no field 'answer'"),
        ([], "holds no records"),
        (["", "  "], "holds no records"),
        (["{"], r"a.jsonl:1 is not JSON"),
        ([[1, 2]], "is a list, not a JSON object"),
        ([{"question": ["a"], "answer": "b"}], "the question must be a text or a number"),
        ([{"question": "a", "answer": None}], "the answer must be a text or a number"),
        (["", '{"question": NaN, "answer": "b"}'], r"a.jsonl:2: 'question' is nan"),
        ([{"question": None, "answer": "b"}], r"a.jsonl:1: 'question' is None"),
        (['{"question": "a", "answer": 1e999}'], r"a.jsonl:1: 'answer' is inf"),
        ([{"question": "", "answer": "b"}], r"a.jsonl:1: 'question' is empty"),
        (["", '{"question": ' + "[" * 100_000], r"a.jsonl:2 has brackets nested too deep"),
        (['{"question": ' + "1" * 5000 + "}"], r"a.jsonl:1 is not JSON \(Exceeds the limit"),
        ([{"question": "\ud800", "answer": "b"}], r"a.jsonl:1: 'question' holds '\\ud800', half of a character"),
        ([{"question": "a", "answer": "b", "more": {"c": ["x\udfff"]}}], r"a.jsonl:1: 'more' holds '\\udfff'"),
    ],
)
def test_jsonl_mistakes_are_named(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        from_jsonl(write(tmp_path / "a.jsonl", *rows))


def test_jsonl_reads_escaped_characters_whole_numbers_and_every_end_of_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'{"question": "\\ud83d\\ude00"}\r\n{"question": ' + b"1" * 400 + b'}\r{"question": "a\xe2\x80\xa8b"}'
    )
    samples = from_jsonl(path, {"question": "question"})
    assert [(s.question, s.seed) for s in samples] == [("😀", 1), ("1" * 400, 2), ("a\u2028b", 3)]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "ü"}\n', encoding="utf-8-sig")
    assert [s.question for s in from_jsonl(path, {"question": "question"})] == ["ü"]


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("latin1", r"a b.jsonl:2 is not UTF-8: byte 0xfc at position 32 .* iconv -f LATIN1 -t UTF-8 '.*a b.jsonl' > "),
        ("utf-16", r"a b.jsonl:1 is not UTF-8: byte 0xf[ef] at position 0 .* iconv -f UTF-16 "),
    ],
)
def test_a_file_that_is_not_utf8_is_named_with_the_place(tmp_path, encoding, message):
    path = tmp_path / "a b.jsonl"
    path.write_text('{"question": "a"}\n{"question": "ü"}\n', encoding=encoding)
    with pytest.raises(UserError, match=message):
        from_jsonl(path, {"question": "question"})


def test_jsonl_refuses_a_mapping_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="must map 'question'"):
        from_jsonl(tmp_path / "a.jsonl", {"prompt": "question"})
