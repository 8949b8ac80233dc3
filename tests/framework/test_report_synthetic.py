"""Made-up runs that look like real ones, for the tests of the report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framework.rundata import load_run

HOSTILE = "</script><img src=x onerror=\"window.onerror('hacked')\"><!--<script> naïve 猫 \u2028 \u202e 😀 & <think>"
TASKS = ("dyck", "boolean", "word_sorting")
ARMS = {"grpo": (0.58, 0.30), "clip_cov": (0.75, 0.04), "kl_cov": (0.70, 0.06)}  # final accuracy, entropy decay


def make_run(
    path: Path, *, arms: Sequence[str] = ("clip_cov", "grpo"), steps: int = 60, seed: int = 0, per_eval: int = 12
) -> Path:
    """Write a run directory: a warm start, then arms of unequal length, with damage of the kinds that happen."""
    rng = np.random.default_rng(seed)
    config = {"name": path.name, "seed": seed, "model": {"layers": 4, "width": 256}, "optimizer": {"lr": 3e-4}}
    config = {"source": "experiments/demo.py:tiny", "overrides": [f"--seed={seed}"], "config": config}
    env = {"date": "2026-08-01T10:00:00+00:00", "cpu": "Example CPU", "cores": 2, "memory_gib": 23.4, "devices": None}
    env |= {"git": {"commit": "0123456789abcdef", "dirty": True}, "packages": {"jax": "0.10.2"}}
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "env.json").write_text(json.dumps(env))
    _write_stage(path / "warm_start", _warm_lines(rng, 120), [], done=True)
    for i, arm in enumerate(arms):
        lines, samples = _arm_lines(rng, arm, steps - 7 * i, per_eval)
        _write_stage(path / arm, lines, samples, done=i == 0)
    with open(path / arms[-1] / "metrics.jsonl", "a") as file:
        file.write('{"step": 999, "reward/me')  # killed while writing
    return path


def _write_stage(folder: Path, lines: list[dict[str, Any]], samples: list[dict[str, Any]], *, done: bool) -> None:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    if done:
        (folder / "done.json").write_text("{}")


def _warm_lines(rng: np.random.Generator, steps: int) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = 0.35 + 3.2 * np.exp(-step / 18) + 0.05 * rng.normal()
        line = {"step": step, "time_s": 0.4 * step, "loss/total": loss, "grad/norm": 1 + loss, "time/train_s": 0.35}
        if step % 20 == 0:
            line["eval/accuracy"] = 0.30 * (1 - np.exp(-step / 40)) / (1 - np.exp(-3))
            line["time/eval_s"] = 0.8
        lines.append(line)
    return lines


def _arm_lines(
    rng: np.random.Generator, arm: str, steps: int, per_eval: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    final, decay = ARMS[arm]
    lines: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        accuracy = 0.30 + (final - 0.30) * (1 - np.exp(-3 * step / steps))
        line: dict[str, Any] = {
            "step": step,
            "time_s": 5.0 * step,
            "reward/mean": float(np.clip(accuracy + 0.05 * rng.normal(), 0, 1)),
            "reward/errors": 0,
            "policy/entropy": float((0.1 + 0.8 * np.exp(-decay * step)) * np.exp(0.06 * rng.normal())),
            "policy/cov_mean": float(0.01 * rng.normal() + 0.03),
            "loss/total": float(0.02 * rng.normal()),
            "grad/norm": None if step == 17 else float(0.8 * np.exp(0.4 * rng.normal())),
            "sampler/logp_gap_max": 0.0 if step == 1 else float(1e-6 * np.exp(0.7 * rng.normal())),
            "length/mean": float(90 + 40 * accuracy + 4 * rng.normal()),
            "length/truncated_frac": float(max(0.0, 0.12 - 0.1 * accuracy + 0.01 * rng.normal())),
            "time/rollout_s": 2.9 + 0.2 * rng.random(),
            "time/reward_s": 0.2,
            "time/train_s": 1.3,
            "throughput/tokens_per_s": float(2600 + 120 * rng.normal()),
        }
        samples += [_sample(rng, step, "train", accuracy, k) for k in range(2)]
        if step % 10 == 0 or step == steps:
            rows = [_sample(rng, step, "eval", accuracy, k) for k in range(per_eval)]
            line |= {"eval/accuracy": float(np.mean([r["reward"] for r in rows])), "time/eval_s": 2.0}
            for i, task in enumerate(TASKS):
                line[f"eval/accuracy/{task}"] = float(np.clip(accuracy + 0.12 * (i - 1), 0, 1))
            samples += rows
        lines.append(line)
    return lines, samples


def _sample(rng: np.random.Generator, step: int, split: str, accuracy: float, k: int) -> dict[str, Any]:
    task = TASKS[k % 3]
    right = bool(rng.random() < accuracy)
    words = [str(w) for w in rng.choice(["cedar", "maple", "ash", "birch", "oak", "elm", "fir"], size=4, replace=False)]
    number = int(rng.integers(1000))
    if task == "dyck":
        question, thought, answer = (
            f"Close the brackets ({number}): ( [ {{ < >",
            "open: ( [ {\n\tclose in reverse",
            "} ] )",
        )
    elif task == "boolean":
        question, thought, answer = (
            f"not ( True and {number % 2 == 0} ) or False",
            "innermost first:\n  and -> not -> or",
            "False",
        )
    else:
        question, answer = f"Sort: {' '.join(words)}", " ".join(sorted(words))
        thought = "\n".join(f"{i}. {w}  -> {ord(w[0])}" for i, w in enumerate(sorted(words)))
    given = answer if right else answer[::-1] + " "
    response = f"<think>{thought}</think>\n<answer>{given}</answer>"
    if step == 20 and k == 0:
        question, response = question + HOSTILE, HOSTILE
    elif k == 1 and step % 9 == 0:
        response = response.replace("</think>", "\nwait, check again: " + "step by step, " * 60 + "</think>")
    return {
        "step": step,
        "split": split,
        "task": task,
        "question": f"{question} #{k}" if split == "eval" else question,
        "response": response,
        "answer": answer,
        "reward": 1.0 if right else 0.0,
    }


def test_a_synthetic_run_loads(tmp_path):
    run = load_run(make_run(tmp_path / "demo", steps=30))
    assert [stage.name for stage in run.stages] == ["warm_start", "clip_cov", "grpo"]
    assert run.stage("grpo").metrics.steps == 23
