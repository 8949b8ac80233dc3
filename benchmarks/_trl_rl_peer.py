"""TRL's GRPOTrainer for benchmarks/rl_iteration.py. A question is a number of iterations.

The trainer owns the loop, so questions are read in its callback. No checkpointing of activations, no reference model
(beta 0), one update per generation, generation by transformers as TRL does without vLLM.
"""

import tempfile
import time
from importlib.metadata import version

import datasets
import tokenizers
import transformers
import trl
from _peer import answer, job, questions
from _torch_model import build

about = job()
sizes = about["sizes"]


def number_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Words are numbers. The end token lies outside the model's vocabulary, so that no answer ends early."""
    words = {str(i): i for i in range(sizes["vocab_size"])} | {"<end>": sizes["vocab_size"]}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="0"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="0", eos_token="<end>")


def reward(completions: list[str], completion_ids: list[list[int]], **_: object) -> list[float]:
    """Even first tokens are good: something that differs within a group."""
    assert all(len(ids) == about["new"] for ids in completion_ids), "no row may end early"
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


class Turns(transformers.TrainerCallback):
    """Works through one question, answers it, waits for the next."""

    def __init__(self) -> None:
        self.asked = questions()
        self.left = about["warm_up"]
        self.ready = False
        self.generation_s = 0.0

    def start(self, iterations: int) -> None:
        self.left, self.generation_s = iterations, 0.0
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, args, state, control, **_):
        self.left -= 1
        if self.left:
            return
        if self.ready:
            wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
            answer({"wall_s": wall, "cpu_s": cpu, "generation_s": self.generation_s})
        else:
            packages = ("trl", "torch", "transformers")
            answer({"ready": True, "version": ", ".join(f"{name} {version(name)}" for name in packages)})
            self.ready = True
        iterations = next(self.asked, None)
        if iterations is None:
            control.should_training_stop = True
        else:
            self.start(iterations)


class Trainer(trl.GRPOTrainer):
    """Knows how long its generation takes (rewards and advantages included)."""

    def _generate_and_score_completions(self, inputs):
        start = time.perf_counter()
        found = super()._generate_and_score_completions(inputs)
        turns.generation_s += time.perf_counter() - start
        return found


turns = Turns()
rows = len(about["prompts"]) * about["samples"]
texts = [" ".join(map(str, prompt)) for prompt in about["prompts"]]
with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(
        model=build(about, sizes),
        reward_funcs=reward,
        processing_class=number_tokenizer(),
        train_dataset=datasets.Dataset.from_dict({"prompt": texts * 1000}),  # an epoch is longer than the benchmark
        callbacks=[turns],
        args=trl.GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=rows,
            num_generations=about["samples"],
            max_completion_length=about["new"],
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            beta=0.0,
            num_iterations=1,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            adam_beta2=0.95,
            max_grad_norm=1.0,
            max_steps=10**6,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
    )
    trainer.train()
