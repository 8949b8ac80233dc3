"""Fine-tuning as a user does it: a Hugging Face checkpoint, a JSONL file, commands, and the result opened in transformers."""

import dataclasses
import functools
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

import experiments.sft as sft
from framework.checkpoint import Checkpoints
from framework.config import load_experiment
from framework.errors import UserError
from framework.mesh import MeshConfig
from framework.rundir import RunDir
from framework.state import leaves
from models.tokenizer import ByteTokenizer

CONFIG = Path(__file__).parent / "fixtures" / "chat_sft.py"
TEMPLATE = """{%- for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random Qwen2 with its tokenizer in Hugging Face format, and forty conversations."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("sft")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["What is one plus two? It is three."], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", chat_template=TEMPLATE)
    fast.save_pretrained(folder / "base")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=0,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "base")
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"{words[a]} plus {words[b]}?"},
                {"role": "assistant", "content": words[a + b]},
            ]
        }
        for a in range(7)
        for b in range(6)
    ]
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)), encoding="utf-8")
    return folder


def state_of(run: RunDir) -> dict[str, np.ndarray]:
    """Arrays of the last checkpoint by name."""
    config = run.rebuild()
    cwd = os.getcwd()
    os.chdir(run.path.parent.parent)
    try:
        abstract = config.build().abstract_state(config.stored_optimizer())
    finally:
        os.chdir(cwd)
    restored = Checkpoints(run.stage("sft").checkpoints_path).restore_latest(abstract)
    assert restored is not None
    return {leaf.name: np.asarray(leaf.value) for leaf in leaves(restored[1])}


VARIANTS = ["full", pytest.param("lora", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def runs(lab, folder):
    """One undisturbed run of a variant, in a real process."""

    @functools.cache
    def done(variant):
        lab.maypole("run", f"{CONFIG}:{variant}", "--name", variant, cwd=folder)
        return RunDir.open(folder / "runs" / variant)

    return done


@pytest.mark.parametrize("variant", VARIANTS)
def test_held_out_loss_falls_and_answers_are_kept(lab, runs, variant):
    stage = runs(variant).stage("sft")
    lines = lab.rows(stage.metrics_path)
    losses = [line["eval/loss"] for line in lines if "eval/loss" in line]
    assert len(losses) == 3  # before, in the middle, at the end
    assert losses[-1] < losses[0] - 0.1
    assert stage.summary == {"steps": 6, "traces": 1}
    answers = lab.rows(stage.samples_path)
    assert len(answers) == 3 * 2
    assert re.fullmatch(r"user: \w+ plus \w+\?", answers[0]["question"])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["full", "lora"])
def test_kill_9_then_resume_gives_the_same_bits(lab, runs, folder, variant):
    process = lab.start("run", f"{CONFIG}:{variant}", "--name", f"killed-{variant}", cwd=folder)
    lab.wait_for_lines(process, folder / f"runs/killed-{variant}/sft/metrics.jsonl", 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    lab.maypole("resume", f"runs/killed-{variant}", cwd=folder)
    resumed = RunDir.open(folder / f"runs/killed-{variant}")
    got, want = state_of(resumed), state_of(runs(variant))
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert lab.rows(resumed.stage("sft").metrics_path) == lab.rows(runs(variant).stage("sft").metrics_path)


@pytest.mark.slow
def test_checkpoints_of_an_adapter_run_hold_adapters_and_no_base_weights(runs):
    names = state_of(runs("lora"))
    assert all(name == "step" or "count" in name or "lora_" in name for name in names)
    assert any(name.startswith("ema/") for name in names)
    assert "params/embedding" in state_of(runs("full"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_export_says_in_transformers_what_generate_says_here(lab, runs, folder, variant):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    question = "three plus four?"
    runs(variant)
    out = folder / f"exported-{variant}"
    lab.maypole("export", f"runs/{variant}", out, "--dtype", "float32", cwd=folder)
    words = ("--prompt", question, "--temperature", "0", "--max-tokens", "8")
    lab.maypole("generate", f"runs/{variant}", *words, "--out", f"{variant}.jsonl", cwd=folder)
    (record,) = map(json.loads, (folder / f"{variant}.jsonl").read_text(encoding="utf-8").splitlines())
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    chat = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        answer = model.generate(**ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[
            0, ids["input_ids"].shape[1] :
        ]
    stop = (answer == 0).nonzero()
    answer = answer[: int(stop[0, 0])] if len(stop) else answer
    assert record["responses"] == [tokenizer.decode(answer)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 6, "microbatches": 4}, r"Use rows=8"),
        ({"length": 1}, r"Use 512"),
        ({"epochs": 0.0, "steps": None}, r"positive number"),
        ({"steps": 0}, r"steps=0 trains nothing"),
        ({"rows": 4, "mesh": MeshConfig(data=8)}, r"rows=4 cannot be split over 8 devices"),
        ({"rows": 16, "microbatches": 4, "mesh": MeshConfig(data=8)}, r"Use rows=32"),
        ({"length": 126, "mesh": MeshConfig(context=4)}, r"Use length=128"),
        ({"model": dataclasses.replace(sft.tiny.model, vocab_size=64)}, r"Use model.vocab_size=272"),
        ({"tokenizer": ByteTokenizer(merges=10)}, r"merges"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_fields_that_cannot_work_together_say_what_to_type(change, message):
    config = dataclasses.replace(sft.smoke, **change)
    with pytest.raises(UserError, match=message):
        config.build_tokenizer(config.build().config)


def test_paper_variant_is_sound_without_its_files():
    sft.paper.validate()
    assert sft.paper.model.parameter_count() == 7_615_616_512  # Qwen2.5-7B, from the published checkpoint's index


def test_smoke_runs_from_the_command_and_reports(lab, tmp_path):
    out = lab.maypole("run", "sft:smoke", "--name", "s", cwd=tmp_path).stdout
    assert out.splitlines()[-1].endswith("report.html")
    assert "eval/loss" in (tmp_path / "runs/s/sft/metrics.jsonl").read_text(encoding="utf-8")


def test_every_variant_loads():
    for variant in ("tiny", "smoke", "lora", "paper"):
        assert load_experiment(f"sft:{variant}").config.name.startswith("sft")
