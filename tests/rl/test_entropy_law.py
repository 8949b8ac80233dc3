"""The law R = -a exp(H) + b: its fit, its forecast, and the correlation used in reports."""

import numpy as np
import pytest

from rl.entropy_law import fit_entropy_law, forecast, pearson_r

H, R = [1.0, 0.5, 0.2, 0.1], [0.10, 0.25, 0.30, 0.32]


def test_fit_of_all_points():
    # Least squares on these four points (method of arXiv:2505.22617, eq. 6).
    law = fit_entropy_law(H, R)
    np.testing.assert_allclose([law.a, law.b, law.ceiling], [0.13528774, 0.46888971, 0.33360198], atol=1e-8)
    assert 0.98 < law.r2 <= 1


def test_forecast_from_the_first_two_points():
    out = forecast(H, R, 2)
    np.testing.assert_allclose([out.law.a, out.law.b], [0.14024451, 0.48122411], atol=1e-8)
    np.testing.assert_allclose(out.predicted, [0.30992908, 0.32622995], atol=1e-8)
    np.testing.assert_allclose(out.rmse, 0.00828851, atol=1e-8)
    np.testing.assert_allclose(out.last_error, 0.32622995 - 0.32, atol=1e-8)
    np.testing.assert_allclose(out.naive_rmse, np.sqrt((0.05**2 + 0.07**2) / 2), atol=1e-12)


def test_the_fit_finds_the_law_that_made_the_points():
    h = np.linspace(2, 0.1, 30)
    law = fit_entropy_law(h, -0.02 * np.exp(h) + 0.4)
    np.testing.assert_allclose([law.a, law.b, law.r2], [0.02, 0.4, 1.0], atol=1e-12)
    np.testing.assert_allclose(law.predict(0.0), law.ceiling)


def test_a_falling_score_is_legal_and_reported():
    law = fit_entropy_law([1.0, 0.5], [0.5, 0.3])
    assert law.a < 0
    assert "falls" in str(law)


@pytest.mark.parametrize(
    ("h", "r", "match"),
    [
        ([0.5, 0.5, 0.5], [0.1, 0.2, 0.3], "1 distinct"),
        ([0.5], [0.1], "1 distinct"),
        ([0.5, np.nan], [0.1, 0.2], "NaN"),
        ([0.5, 0.1], [0.1, np.inf], "infinity"),
        ([0.5, 0.1], [0.1], "shape"),
    ],
)
def test_a_fit_that_cannot_be_made_is_refused(h, r, match):
    with pytest.raises(ValueError, match=match):
        fit_entropy_law(h, r)


@pytest.mark.parametrize("n_fit", [0, 1, 4, 9])
def test_a_forecast_needs_points_to_fit_and_points_to_predict(n_fit):
    with pytest.raises(ValueError, match=f"n_fit={n_fit}"):
        forecast(H, R, n_fit)


def test_pearson_r():
    x = np.arange(10.0)
    y = x**2
    np.testing.assert_allclose(pearson_r(x, y), np.corrcoef(x, y)[0, 1])
    gap = y.copy()
    gap[3] = np.nan
    np.testing.assert_allclose(pearson_r(x, gap), np.corrcoef(np.delete(x, 3), np.delete(y, 3))[0, 1])
    assert np.isnan(pearson_r(x, np.ones(10)))
    assert np.isnan(pearson_r([1.0], [2.0]))
    with pytest.raises(ValueError, match="shape"):
        pearson_r(x, y[:3])
