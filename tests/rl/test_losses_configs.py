"""Mistakes in a loss config or in a call say what to type."""

import numpy as np
import pytest

from rl.losses import (
    ClipCov,
    Clipped,
    KLCov,
    clip_cov_loss,
    pg_loss,
)

ZEROS = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize("logp", [np.zeros(3), np.zeros((2, 4))])
def test_wrong_shapes_are_refused(logp):
    with pytest.raises(ValueError, match="logp has shape"):
        pg_loss(logp, ZEROS, ZEROS, ZEROS)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (KLCov(frac=2.0), r"KLCov\.from_percent\(2\.0\), that is frac=0\.02"),
        (KLCov(frac=-0.1), "from 0 to 1"),
        (KLCov(beta=-1.0), "beta=1.0"),
        (KLCov(scope="device"), "scope='global'"),  # pyright: ignore[reportArgumentType]
        (ClipCov(frac=1.5), "ClipCov.from_percent"),
        (ClipCov(w_low=5.0, w_high=1.0), "w_low < w_high"),
        (ClipCov(band="quantile"), "w_low=0.9, w_high=1.0"),
        (ClipCov(band="top"), "band='absolute'"),  # pyright: ignore[reportArgumentType]
        (ClipCov(clip_lo=-0.2), "clip_lo=1.0"),
        (Clipped(eps_lo=-0.2), "eps_lo=0.2"),
    ],
)
def test_a_config_that_cannot_work_says_what_to_type(config, match):
    with pytest.raises(ValueError, match=match):
        config.build()


def test_percent_becomes_a_fraction():
    assert KLCov.from_percent(0.2) == KLCov(frac=2e-3)
    assert ClipCov.from_percent(0.02).frac == pytest.approx(2e-4)


def test_a_loss_that_picks_asks_for_the_pick():
    with pytest.raises(ValueError, match=r"KLCov\.pick\(key"):
        KLCov().build().loss(ZEROS, ZEROS, ZEROS, ZEROS)
    with pytest.raises(ValueError, match="key="):
        clip_cov_loss(ZEROS, ZEROS, ZEROS, ZEROS)
    assert not Clipped().build().needs_pick
