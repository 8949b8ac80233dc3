"""What keeping freed memory saves a training step on a CPU:  python benchmarks/allocator.py [--out FILE]

One process a measurement, the two settings in turn, because an allocator cannot be set back. Writes JSON: milliseconds of one
policy update of the entropy experiment's `tiny`, and minor page faults a step.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS, STEPS = 5, 12


def measure(keep: bool) -> dict[str, float]:
    """In a process of its own: the median step and the page faults of a step."""
    from framework.allocator import keep_freed_memory

    if keep and not keep_freed_memory():
        raise SystemExit("This C library is not glibc, or MALLOC_* variables are set: nothing to measure.")
    import jax
    import numpy as np

    from experiments.entropy_mechanism import tiny
    from rl.batch import make_batch
    from rl.learner import policy_step
    from rl.losses import Unclipped

    setup, roll = tiny.build(), tiny.rollout
    tx = tiny.optimizer_of("unclipped")
    state = setup.new_state(setup.new_params(), tx)
    rng = np.random.default_rng(0)
    rows = roll.prompts * roll.samples // roll.updates
    batch = make_batch(
        [rng.integers(6, 200, roll.max_prompt).tolist() for _ in range(rows)],
        [rng.integers(6, 200, roll.max_new_tokens).tolist() for _ in range(rows)],
        prompt_length=roll.max_prompt,
        response_length=roll.max_new_tokens,
        old_logp=[np.full(roll.max_new_tokens, -5.0)] * rows,
        adv=rng.normal(size=rows),
    )
    loss, key = Unclipped().build(), jax.random.key(0)

    @jax.jit
    def step(state):
        return policy_step(setup.graphdef, state, batch, key, loss=loss, tx=tx, temperature=1.0)

    for _ in range(2):
        state = jax.block_until_ready(step(state)[0])
    seconds, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(STEPS):
        began = time.perf_counter()
        state = jax.block_until_ready(step(state)[0])
        seconds.append(time.perf_counter() - began)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {"step_ms": 1e3 * statistics.median(seconds), "page_faults_a_step": faults / STEPS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/allocator.json")
    parser.add_argument("--child", choices=("keep", "default"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.child == "keep")))
        return
    from framework.env import describe_env

    found: dict[str, list[dict[str, float]]] = {"default": [], "keep": []}
    for _ in range(ROUNDS):
        for name, runs in found.items():
            done = subprocess.run(
                [sys.executable, __file__, "--child", name], check=True, capture_output=True, text=True
            )
            runs.append(json.loads(done.stdout))
    medians = {
        name: {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
        for name, runs in found.items()
    }
    ratio = round(medians["keep"]["step_ms"] / medians["default"]["step_ms"], 3)
    result = {"environment": describe_env(), "median": medians, "keep_over_default": ratio, "runs": found}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(medians, indent=1), f"step with kept memory over default: {ratio}", sep="\n")


if __name__ == "__main__":
    main()
