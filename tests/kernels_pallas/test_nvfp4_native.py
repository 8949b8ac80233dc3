"""The product on Blackwell: what it is given, what it compiles to, and that no other machine pretends to have it."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from framework.errors import UserError
from kernels_pallas import e2m1, nvfp4
from kernels_pallas.nvfp4 import native


def test_elements_are_the_codes_bit_for_bit():
    codes = np.arange(16, dtype=np.uint8)
    given = np.asarray(native.elements(e2m1.pack(jnp.asarray(np.stack([codes, codes[::-1]])))), np.float32)
    values = np.concatenate([e2m1.VALUES, np.negative(e2m1.VALUES)])
    np.testing.assert_array_equal(given, [values, values[::-1]])
    np.testing.assert_array_equal(np.signbit(given[0]), codes >= 8)  # -0 too


def test_a_gpu_is_given_four_bits_and_the_scales_of_groups():
    shapes = [jax.ShapeDtypeStruct(shape, jnp.uint8) for shape in ((2, 3, 32), (2, 3, 4), (8, 32), (8, 4))]
    traced = jax.jit(native.matmul).trace(*shapes)
    assert traced.out_info.shape == (2, 3, 8)
    assert traced.out_info.dtype == jnp.float32
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    call = re.search(r"block_scaled_dot\(.*", text)
    assert call is not None
    wanted = "(tensor<1x6x64xf4E2M1FN>, tensor<1x8x64xf4E2M1FN>, tensor<1x6x4xf8E4M3FN>, tensor<1x8x4xf8E4M3FN>)"
    assert wanted in call[0]
    assert "tensor<1x6x8xf32>" in call[0]


@pytest.mark.parametrize(
    ("platform", "capability", "can"),
    [
        ("gpu", "10.0", True),
        ("gpu", "12.0", True),
        ("gpu", "9.0", False),
        ("gpu", "gfx942", False),
        ("cpu", None, False),
    ],
)
def test_only_blackwell_has_it(monkeypatch, platform, capability, can):
    device = SimpleNamespace(platform=platform, compute_capability=capability, device_kind="a thing")
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert (native.unsupported() is None) is can


def test_another_machine_says_what_is_missing():
    x = nvfp4.quantize(jnp.ones((2, 32)))
    with pytest.raises(UserError, match=r"compute capability 10\.0 or more, and this is cpu\. Use impl='exact'"):
        nvfp4.matmul(x, x, impl="native")
    with pytest.raises(UserError, match=r"impl='fast' is not one\. Use 'exact' or 'native'"):
        nvfp4.matmul(x, x, impl="fast")
