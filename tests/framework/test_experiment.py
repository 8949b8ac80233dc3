from pathlib import Path

from framework.config import load_experiment
from framework.experiment import Claim, Experiment, Policy, is_experiment

TOY = Path(__file__).parent / "fixtures" / "toy_experiment.py"


def test_an_experiment_is_an_instance_with_the_members_and_no_base_class():
    loaded = load_experiment(str(TOY))
    assert is_experiment(loaded.config)
    assert isinstance(loaded.config, Experiment)
    assert isinstance(loaded.module.Upper(), Policy)
    for other in (loaded.module.Toy, loaded.module.Arm(name="a", loss=loaded.module.KLCov()), loaded.module.reward, 3):
        assert not is_experiment(other)


def test_a_claim_names_arms_a_measure_and_a_threshold():
    claim = Claim(
        name="c", arms=("a", "b"), measure="eval/accuracy", direction="higher", threshold=0.0, text="a beats b."
    )
    assert claim.arms == ("a", "b")
