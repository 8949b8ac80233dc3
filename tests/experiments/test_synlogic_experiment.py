"""The SynLogic experiment: what its claims are judged on, and a small run of everything `reproduce` does."""

import dataclasses
import json

import pytest

from data.mixture_rewards import format_reward
from data.questions import SynLogic
from data.synlogic import TASKS
from data.synlogic.calibrate import Calibration, Cell
from experiments import _synlogic_results, _synlogic_runs, synlogic
from experiments._synlogic_report import accepted_wrong, calibration_section, hacking_sections, sections
from experiments._synlogic_results import collect, page, reproduce_claims, update_page
from experiments._synlogic_runs import SeedRuns, Study, band_config, count_verdicts
from experiments._synlogic_sums import Sums
from framework.errors import UserError
from framework.rundata import load_run
from rl.config import Arm
from rl.losses import Clipped

VERDICT = {"instances": 4, "oracle_strict": 4, "oracle_official": 4, "perturbed_rejected": 4, "perturbed_official": 0}


def cell(task, level, weak, strong):
    return Cell(task=task, level=level, samples=10, weak=(weak,), strong=(strong,))


MEASURED = Calibration(
    cells=(cell("dyck_language", "tiny", 3, 8), cell("kukurasu", "tiny", 9, 9), cell("mathador", "normal", 0, 0))
)


def write_stage(folder, points):
    """points: metric -> values at steps 0, 1, 2."""
    folder.mkdir(parents=True)
    lines = [{"step": i, "time_s": float(i)} | {k: v[i] for k, v in points.items()} for i in range(3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def seed_runs(root, *, gain=0.3, outside=0.0, sums=0.5, hack=0.3):
    """Runs of one seed with known numbers; the final value is the mean of the last two evaluations."""

    def rising(by):
        return [0.3, 0.3 + by, 0.3 + by]

    plain = {"eval/score/format_reward": [0.9, 1.0, 1.0], "eval/accuracy/sums": [0.2, sums, sums]}
    for arm, by in {"dapo": gain, "symmetric_clip": gain, "format_only": 0.0, "math_only": 0.1}.items():
        own = plain | ({"eval/accuracy/sums": [0.2, 0.5, 0.5]} if arm == "math_only" else {})
        write_stage(root / "main" / arm, {"eval/accuracy": rising(by)} | own)
    write_stage(root / "band/in_band", {"eval/accuracy": rising(gain)} | plain)
    write_stage(root / "band/out_of_band", {"eval/accuracy": rising(outside)} | plain)
    for arm, by in {"official": hack, "strict": -0.1}.items():
        official = [0.3 + 0.2, 0.3 + 0.2 + by, 0.3 + 0.2 + by]
        write_stage(
            root / "hacking" / arm, {"eval/accuracy": rising(0.0), "eval/score/official_reward": official} | plain
        )
    return SeedRuns(*(load_run(root / name) for name in ("main", "band", "hacking")), MEASURED)


def held(results):
    return {claim["name"]: list(claim["holds_by_seed"].values()) for claim in results["claims"]}


def test_claims_are_judged_seed_by_seed(tmp_path):
    runs = {
        0: seed_runs(tmp_path / "0"),
        1: seed_runs(tmp_path / "1", gain=0.02, outside=0.05, sums=0.4, hack=0.0),
    }
    results = collect(runs, {"kukurasu": VERDICT}, synlogic.claims)
    always = {"oracle_accepted", "oracle_accepted_officially", "wrong_rejected", "format_is_learnt", "strict_is_not"}
    assert held(results) == {claim.name: [True, claim.name in always] for claim in synlogic.claims}
    json.dumps(results, allow_nan=False)
    entry = results["arms"]["dapo"]["mean"]["accuracy_gain"]
    assert entry["mean"] == pytest.approx(0.16)
    assert entry["sem"] == pytest.approx(0.14)


def test_one_verifier_that_fails_is_not_averaged_away(tmp_path):
    verdicts = {"kukurasu": VERDICT, "mathador": VERDICT | {"perturbed_rejected": 3, "perturbed_official": 2}}
    results = collect({0: seed_runs(tmp_path)}, verdicts, synlogic.claims)
    assert held(results)["wrong_rejected"] == [False]
    assert held(results)["oracle_accepted"] == [True]
    assert "accepted by the official one: 2 (mathador 2)." in page(results)


def test_the_page_shows_arms_claims_calibration_and_verdicts(tmp_path):
    results = collect({0: seed_runs(tmp_path)}, {"kukurasu": VERDICT}, synlogic.claims)
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- results -->\nnot measured\n<!-- end of results -->\nafter\n")
    update_page(file, results)
    text = file.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "not measured\n" not in text
    assert "| official | 30.0 | 30.0 | +" not in text
    assert all(f"| {arm} |" in text for arm in results["arms"])
    assert all(f"| {claim.text} |" in text for claim in synlogic.claims)
    assert "| dyck_language | tiny | 30.0 | 80.0 | learnable |" in text
    assert "1 tasks, 4 instances" in text


def test_report_sections_show_tasks_calibration_and_the_gap(tmp_path):
    runs = seed_runs(tmp_path)
    (by_task,) = sections([runs.main])
    assert by_task.table is not None
    assert by_task.table.columns == ["Arm", "sums", "format rate"]
    assert accepted_wrong(runs.hacking.stage("official"))[1] == pytest.approx([0.2, 0.5, 0.5])
    assert len(hacking_sections([runs.hacking])) == 1
    assert hacking_sections([runs.main]) == sections([]) == []
    assert len(calibration_section({0: MEASURED, 1: MEASURED}).figures) == 2


def test_the_band_trains_on_learnable_settings_and_on_those_out_of_reach():
    config = band_config(synlogic.tiny, MEASURED)
    inside, outside = config.arms
    assert (inside.name, outside.name) == ("in_band", "out_of_band")
    assert inside.data == SynLogic(tasks=(("dyck_language", "tiny"),))
    assert outside.data == SynLogic(tasks=(("mathador", "normal"),))
    assert (config.data, config.warm_start) == (synlogic.tiny.data, synlogic.tiny.warm_start)
    with pytest.raises(UserError, match="found 1 learnable and 0 unreachable settings"):
        band_config(synlogic.tiny, Calibration(cells=MEASURED.cells[:2]))


def test_verdicts_are_counted_once(tmp_path, monkeypatch):
    monkeypatch.setattr(_synlogic_runs, "TASKS", {name: TASKS[name] for name in ("kukurasu", "mathador")})
    counted = count_verdicts(6, tmp_path / "a/v.json")
    assert list(counted) == ["kukurasu", "mathador"]
    assert counted["mathador"]["perturbed_official"] > 0 == counted["kukurasu"]["perturbed_official"]
    for task in counted.values():
        assert task["instances"] == task["oracle_strict"] == task["oracle_official"] == task["perturbed_rejected"] == 12
    monkeypatch.setattr(_synlogic_runs, "_count", None)
    assert count_verdicts(6, tmp_path / "a/v.json") == counted
    with pytest.raises(TypeError):
        count_verdicts(7, tmp_path / "a/v.json")


def test_sums_are_right_but_for_the_noise_and_held_out_ones_are_never_trained_on():
    questions = Sums().build()
    heldout = questions.heldout(count=40, seed=3)
    assert heldout == questions.heldout(count=40, seed=0)
    asked = {sample.question for sample in heldout}
    assert len(asked) == 40
    train = questions.train(seed=0, batch=50)
    assert not asked & {sample.question for step in range(20) for sample in train[step]}
    assert all(eval_sum(sample) == sample.answer for sample in train[0])
    clean, noisy = (questions.demonstrations(seed=0, batch=200, noise=noise)[0] for noise in (0.0, 0.5))
    assert all(synlogic.REWARD(*pair) == 1.0 for pair in clean)
    assert 0.35 < sum(synlogic.REWARD(*pair) for pair in noisy) / 200 < 0.65
    assert "<think>7+8=15 4+3+1=8</think><answer>" in _demonstration(47, 38)
    with pytest.raises(UserError, match="Ask for at most 506"):
        questions.heldout(count=1000, seed=0)
    with pytest.raises(UserError, match="digits=0"):
        Sums(digits=0).build()


def eval_sum(sample):
    a, b = sample.question.removeprefix("sum ").split("+")
    return str(int(a) + int(b))


def _demonstration(a, b):
    from experiments._synlogic_sums import _worked
    from framework.sample import Sample

    sample = Sample(task="sums", question=f"sum {a}+{b}", answer=str(a + b), meta={"a": a, "b": b})
    return f"<think>{_worked(sample)}</think><answer>{sample.answer}</answer>"


def test_every_variant_is_valid_and_the_paper_variant_has_its_numbers():
    paper = synlogic.paper
    for config in (synlogic.tiny, synlogic.smoke, synlogic.hacking, synlogic.smoke_hacking, synlogic.band, paper):
        config.validate()
    assert 7.5e9 < paper.model.parameter_count() < 7.7e9
    roll = paper.rollout
    assert (roll.prompts, roll.samples, roll.prompts // roll.updates, roll.max_new_tokens) == (128, 16, 64, 16_384)
    assert paper.arms[0].loss == Clipped(eps_lo=0.2, eps_hi=0.28)
    assert paper.optimizer.lr == 1e-6
    assert {name for name, _ in paper.data.tasks} == set(TASKS)


def test_worked_answers_fit_their_place():
    for config in (synlogic.tiny, synlogic.hacking):
        tokenizer, roll = config.tokenizer.build(), config.rollout
        pairs = config.data.build().demonstrations(seed=0, batch=400, noise=0.5)[0]
        assert max(len(tokenizer.encode(sample.question)) for sample, _ in pairs) <= roll.max_prompt
        assert max(len(tokenizer.encode(text)) + 1 for _, text in pairs) <= roll.max_new_tokens


@pytest.mark.slow
def test_an_arm_may_have_a_reward_and_questions_of_its_own(lab, tmp_path):
    """Half of the responses of an untrained model are rewarded by `even`, none by the verifiers."""
    arms = (
        Arm(name="plain", loss=Clipped()),
        Arm(name="own", loss=Clipped(), reward=even, data=Sums()),
    )
    config = dataclasses.replace(synlogic.smoke, arms=arms, steps=2)
    run = lab.train(config, tmp_path / "run", "synlogic:smoke")
    plain, own = (lab.rows(run.stage(name).metrics_path) for name in ("plain", "own"))
    assert own[0] == plain[0]  # one warm start, one evaluation
    assert max(line["reward/mean"] for line in own[1:]) > 0.1 > plain[1]["reward/mean"]
    assert f"eval/score/{format_reward.__name__}" in own[2]
    trained = {line["task"] for line in lab.rows(run.stage("own").samples_path) if line["split"] == "train"}
    assert trained == {"sums"}


def even(sample, response):
    return float(len(response) % 2 == 0)


@pytest.mark.slow
def test_reproduce_leaves_everything_merges_seeds_and_trains_nothing_twice(tmp_path, monkeypatch):
    """Small in all; the calibration of an untrained model finds nothing, so that its rule gets other counts."""

    def counts(study, config, stage, tokenizer, groups, pool):
        real = _real(study, config, stage, tokenizer, groups, pool)
        assert all(len(own) == study.questions for own in real.values())
        weak = stage.name == "warm_start"
        return {name: (0,) * 3 if "normal" in name else (1, 0, 1) if weak else (3, 3, 2) for name in real}

    _real = _synlogic_runs._counts
    monkeypatch.setattr(_synlogic_runs, "_counts", counts)
    monkeypatch.setattr(_synlogic_runs, "TASKS", {"kukurasu": TASKS["kukurasu"]})
    results, docs = tmp_path / "results/synlogic.json", tmp_path / "page.md"
    for name, value in {"RESULTS": results, "PAGE": docs, "SEEDS": (0, 1)}.items():
        monkeypatch.setattr(_synlogic_results, name, value)
    docs.write_text("<!-- results -->\n<!-- end of results -->\n")
    grid = (("dyck_language", "tiny"), ("kukurasu", "tiny"), ("mathador", "normal"), ("boolean_expressions", "normal"))
    study = Study(main=synlogic.smoke, hacking=synlogic.smoke_hacking, grid=grid, questions=3, samples=4, verdicts=2)
    out = tmp_path / "runs"
    for seed in (0, 1):  # as processes of their own would do it
        reproduce_claims(study, synlogic.claims, out=out, results=out / "synlogic.json", seeds=(seed,))
        assert (out / f"report-{seed}.html").is_file()
    assert docs.read_text() == "<!-- results -->\n<!-- end of results -->\n"
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("seed-*/*/*/metrics.jsonl")}
    assert len(stamps) == 2 * (5 + 3 + 3)
    before = json.loads((out / "synlogic.json").read_text())["arms"]
    reproduce_claims(study, synlogic.claims, out=out, results=results, seeds=(0, 1))
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    measured = json.loads(results.read_text())
    assert measured["seeds"] == [0, 1]
    assert {arm: entry["seeds"]["1"] for arm, entry in measured["arms"].items()} == {
        arm: entry["seeds"]["1"] for arm, entry in before.items()
    }
    assert [cell["kind"] for cell in measured["calibration"]["0"]["cells"]] == ["learnable", "learnable", "too hard"]
    assert page(measured) in docs.read_text()
    report = (out / "report.html").read_text()
    for title in ("Accuracy by task", "Calibration", "Inside and outside the band", "Reward hacking"):
        assert title in report
