"""Reading compiled programs: loops, matrix products, traffic, traffic between devices."""

import textwrap

import numpy as np
import pytest

from framework.plan_buffers import shards, temporaries
from framework.plan_cost import _valid_pairs, program_cost
from framework.plan_hlo import Module, arrays_of


def module(entry: str, others: str = "") -> Module:
    body = textwrap.indent(textwrap.dedent(entry).strip(), "  ")
    return Module(f"HloModule m\n\n{textwrap.dedent(others)}\nENTRY %main (a: f32[1]) -> f32[1] {{\n{body}\n}}\n")


LOOP = """
%body (s: (s32[], f32[8,16], f32[16,16])) -> (s32[], f32[8,16], f32[16,16]) {
  %s = (s32[], f32[8,16]{1,0}, f32[16,16]{1,0}) parameter(0)
  %x = f32[8,16]{1,0} get-tuple-element(%s), index=1
  %w = f32[16,16]{1,0} get-tuple-element(%s), index=2
  %y = f32[8,16]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %j = s32[] get-tuple-element(%s), index=0
  %step = s32[] constant(STEP)
  %next = s32[] add(%j, %step)
  ROOT %t = (s32[], f32[8,16]{1,0}, f32[16,16]{1,0}) tuple(%next, %y, %w)
}

%condition (s.1: (s32[], f32[8,16], f32[16,16])) -> pred[] {
  %s.1 = (s32[], f32[8,16]{1,0}, f32[16,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s.1), index=0
  BOUND
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}
"""
ENTRY = """
%zero = s32[] constant(0)
%seven = s32[] constant(7)
%p = f32[8,16]{1,0} parameter(0)
%q = f32[16,16]{1,0} parameter(1)
%start = (s32[], f32[8,16]{1,0}, f32[16,16]{1,0}) tuple(FIRST, %p, %q)
ROOT %loop = (s32[], f32[8,16]{1,0}, f32[16,16]{1,0}) while(%start), condition=%condition, body=%body
"""


def loop(bound: str, first: str = "%zero", step: int = 1) -> Module:
    return module(ENTRY.replace("FIRST", first), LOOP.replace("BOUND", bound).replace("STEP", str(step)))


@pytest.mark.parametrize(
    ("program", "trips"),
    [
        (loop("%n = s32[] constant(5)"), 5),
        (loop("%m = s32[] constant(5)\n  %n = s32[] copy(%m)"), 5),
        (loop("%n = s32[] constant(9)", first="%seven"), 2),
        (loop("%n = s32[] constant(8)", step=2), 4),  # two turns joined in one
        (loop("%n = s32[] constant(7)", step=2), 4),
    ],
    ids=["constant", "copied", "from seven", "by two", "by two, odd"],
)
def test_a_loop_multiplies_its_body(program, trips):
    cost = program_cost(program)
    assert cost.flops == trips * 2 * 8 * 16 * 16
    assert cost.hbm_bytes == trips * 4 * (
        8 * 16 + 16 * 16 + 8 * 16 + 3
    )  # and the counter: its step, and it itself twice
    assert cost.notes == ()


def test_a_loop_of_unknown_length_counts_once_and_says_so():
    cost = program_cost(loop("%n = s32[] custom-call(%i)"))
    assert cost.flops == 2 * 8 * 16 * 16
    assert cost.notes == ("loop loop has no bound in the program and counts once",)


def test_a_slice_of_a_large_array_counts_as_the_slice():
    fused = """
    %f (a.1: f32[100,64], i.1: s32[]) -> f32[1,64] {
      %a.1 = f32[100,64]{1,0} parameter(0)
      %i.1 = s32[] parameter(1)
      ROOT %d = f32[1,64]{1,0} dynamic-slice(%a.1, %i.1, %i.1), dynamic_slice_sizes={1,64}
    }

    %g (a.2: f32[100,64], u.2: f32[1,64], i.2: s32[]) -> f32[100,64] {
      %a.2 = f32[100,64]{1,0} parameter(0)
      %u.2 = f32[1,64]{1,0} parameter(1)
      %i.2 = s32[] parameter(2)
      ROOT %d.2 = f32[100,64]{1,0} dynamic-update-slice(%a.2, %u.2, %i.2, %i.2)
    }
    """
    cost = program_cost(
        module(
            """
            %a = f32[100,64]{1,0} parameter(0)
            %i = s32[]{:T(128)S(6)} parameter(1)
            %row = f32[1,64]{1,0} fusion(%a, %i), kind=kLoop, calls=%f
            ROOT %b = f32[100,64]{1,0} fusion(%a, %row, %i), kind=kLoop, calls=%g
            """,
            textwrap.dedent(fused),
        )
    )
    assert cost.hbm_bytes == 4 * 64 * (2 + 2)  # the row read and written, then read and written into its place


def test_an_array_that_is_updated_and_then_read_is_read():
    fused = """
    %f (a.1: f32[100,64], u.1: f32[1,64], i.1: s32[], q.1: f32[64]) -> (f32[100,64], f32[100]) {
      %a.1 = f32[100,64]{1,0} parameter(0)
      %u.1 = f32[1,64]{1,0} parameter(1)
      %i.1 = s32[]{:S(6)} parameter(2)
      %q.1 = f32[64]{0} parameter(3)
      %d = f32[100,64]{1,0} dynamic-update-slice(%a.1, %u.1, %i.1, %i.1)
      %s = f32[100]{0} dot(%d, %q.1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
      ROOT %t = (f32[100,64]{1,0}, f32[100]{0}) tuple(%d, %s)
    }
    """
    cost = program_cost(
        module(
            """
            %a = f32[100,64]{1,0} parameter(0)
            %u = f32[1,64]{1,0} parameter(1)
            %i = s32[]{:S(6)} parameter(2)
            %q = f32[64]{0} parameter(3)
            ROOT %b = (f32[100,64]{1,0}, f32[100]{0}) fusion(%a, %u, %i, %q), kind=kLoop, calls=%f
            """,
            textwrap.dedent(fused),
        )
    )
    assert cost.hbm_bytes == 4 * (100 * 64 + 64 + 64 + 64 + 100)  # array, update, query; update and scores


def test_an_array_that_an_inner_fusion_only_reshapes_is_read():
    fused = """
    %g (a.2: f32[100,64]) -> f32[6400] {
      %a.2 = f32[100,64]{1,0} parameter(0)
      ROOT %r.2 = f32[6400]{0} bitcast(%a.2)
    }

    %f (a.1: f32[100,64]) -> f32[6400] {
      %a.1 = f32[100,64]{1,0} parameter(0)
      %g.1 = f32[6400]{0} fusion(%a.1), kind=kLoop, calls=%g
      ROOT %n = f32[6400]{0} negate(%g.1)
    }
    """
    text = "%a = f32[100,64]{1,0} parameter(0)\nROOT %b = f32[6400]{0} fusion(%a), kind=kLoop, calls=%f"
    assert program_cost(module(text, textwrap.dedent(fused))).hbm_bytes == 2 * 4 * 6400


def test_what_is_kept_beside_the_compute_units_is_no_traffic():
    cost = program_cost(
        module("%a = f32[8]{0:T(128)S(1)} parameter(0)\nROOT %b = f32[8]{0:T(128)} negate(%a)")
    )  # fmt: skip
    assert cost.hbm_bytes == 32


@pytest.mark.parametrize(
    ("text", "kind", "sent"),
    [
        ("%c = f32[64]{0} all-gather(%a), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}", "all-gather", 192),
        ("%c = f32[64]{0} all-reduce(%a), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%s", "all-reduce", 256),
        (
            "%c = f32[16]{0} reduce-scatter(%a), channel_id=1, replica_groups=mesh['x'=4,'y'=2] {'x'}, dimensions={0}",
            "reduce-scatter",
            192,
        ),
        (
            "%c = f32[64]{0} collective-permute(%a), channel_id=1, source_target_pairs={{0,1}}",
            "collective-permute",
            256,
        ),
        ("%c = f32[64]{0} all-reduce(%a), channel_id=1, replica_groups={{0}}, to_apply=%s", None, 0),
    ],
)
def test_bytes_sent_are_those_of_a_ring(text, kind, sent):
    cost = program_cost(module(f"%a = f32[64]{{0}} parameter(0)\n{text}\nROOT %r = f32[64]{{0}} copy(%a)"))
    assert cost.bytes_sent == sent
    assert list(cost.collectives) == ([kind] if kind else [])


def test_a_collective_spread_over_fusions_counts_once():
    fused = "".join(
        f"%f{n} (p{n}: f32[16]) -> f32[64] {{\n  %p{n} = f32[16]{{0}} parameter(0)\n"
        f"  ROOT %g{n} = f32[64]{{0}} all-gather(%p{n}), channel_id=5, replica_groups=[1,4]<=[4], dimensions={{0}}\n}}\n\n"
        for n in range(2)
    )
    lines = "\n".join(f"%c{n} = f32[64]{{0}} fusion(%a), kind=kLoop, calls=%f{n}" for n in range(2))
    cost = program_cost(module(f"%a = f32[16]{{0}} parameter(0)\n{lines}\nROOT %r = f32[16]{{0}} copy(%a)", fused))
    assert cost.collectives["all-gather"].calls == 1


def test_a_batched_product_that_a_tpu_writes_as_a_convolution_counts_as_the_product():
    cost = program_cost(
        module(
            """
            %a = bf16[4,32,64]{2,1,0} parameter(0)
            %b = bf16[4,64,16]{2,1,0} parameter(1)
            ROOT %c = f32[4,32,16]{2,1,0} convolution(%a, %b), window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0io->0bf
            """
        )
    )
    assert cost.flops == 2 * 4 * 32 * 64 * 16


@pytest.mark.parametrize("case", range(40))
def test_valid_pairs_are_those_found_by_trying_all(case):
    draw = np.random.default_rng(case)
    size, kernel, out, stride, dilate, kernel_dilate = (int(n) for n in draw.integers(1, 7, 6))
    pad = int(draw.integers(0, 4))
    tried = sum(
        0 <= o * stride - pad + k * kernel_dilate <= (size - 1) * dilate
        and (o * stride - pad + k * kernel_dilate) % dilate == 0
        for o in range(out)
        for k in range(kernel)
    )
    assert _valid_pairs(size, kernel, out, stride, pad, dilate, kernel_dilate) == tried


def test_line_breaks_in_the_metadata_of_a_kernel_do_not_end_the_program():
    attributes = 'custom_call_target="tpu_custom_call", frontend_attributes={x={\n"y":1\n}}'
    kernel = f"%k = f32[8]{{0}} custom-call(%a), {attributes}"
    parsed = module(f"%a = f32[8]{{0}} parameter(0)\n{kernel}\nROOT %r = f32[8]{{0}} copy(%k)")
    assert list(parsed.computations["main"].instructions) == ["a", "k", "r"]
    signature = (("f32", (8,)),)
    assert program_cost(parsed, {signature: 123.0}).flops == 123.0
    assert program_cost(parsed).notes == ("the FLOPs of kernel k are unknown and not counted",)


ASSIGNMENT = """BufferAssignment:
allocation 0: size 512, color 1, page 0, preallocated-temp:
 value: <1 x{0} @1> (size=512,offset=0): f32[128]{0:T(128)S(1)}
allocation 1: size 1000, page 0, parameter 0, shape |f32[250]| at ShapeIndex {}:
 value: <2 p @0> (size=1000,offset=0): f32[250]{0}
allocation 2: size 3072, page 0, preallocated-temp:
 value: <3 big @0> (size=2048,offset=0): bf16[8,128]{1,0}
 value: <4 later @0> (size=1024,offset=512): f32[256]{0}
 value: <5 beside @0> (size=1024,offset=2048): f32[4,64]{1,0}
 value: <6 loop{} (phi) @0> (size=64,offset=3000): (f32[4,64], s32[])
"""


def test_of_buffers_that_share_a_place_the_largest_is_named():
    parsed = module('%big = bf16[8,128]{1,0} parameter(0), metadata={op_name="jit(f)/layer/sin"}')
    found = temporaries(ASSIGNMENT, parsed)
    assert [(b.bytes, b.shape, b.what) for b in found] == [
        (2048, "bf16[8,128]", "jit(f)/layer/sin"),
        (1024, "f32[4,64]", "beside"),
    ]


@pytest.mark.parametrize(
    ("whole", "size"),
    [
        ("bf16[64,128]", 2048),  # split eight ways
        ("f32[256]", 1024),  # also where a larger buffer has the place at another time
        ("bf16[64,64]", 0),  # none divides it
        ("s32[8,128]", 0),  # another type
    ],
)
def test_shards_of_known_arrays_are_found_among_the_temporaries(whole, size):
    assert shards(ASSIGNMENT, arrays_of(whole)) == size
    assert shards(ASSIGNMENT, 3 * arrays_of(whole)) == 3 * size
