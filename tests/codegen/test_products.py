"""Matrix products as loops, of every shape, and the functions of vectors that are inlined."""

import ctypes

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odec.codegen import blas, inline_math
from odec.codegen.compile import Library, object_code
from odec.codegen.kernel import Argument, Call, Element, Index, Kernel, Return
from odec.codegen.print_llvm import print_llvm
from odec.codegen.targets import cpu_target


def compiled(text, name, arguments):
    """A function of a text, and what keeps its code in memory."""
    library = Library(object_code(text), blas.symbols(blas.symbols_in(text)))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(library.address(name)), library


# ---- products


def product_text(m, n, k, flip_a, flip_b, dtype="float64"):
    a, b, c = (Element(name, Index()) for name in "abc")
    call = Call("gemm", (flip_a, flip_b, m, n, k, a, m if flip_a else k, b, k if flip_b else n, c, n), None)
    sizes = ("a", m * k, False), ("b", k * n, False), ("c", m * n, True)
    arguments = tuple(Argument(name, size, dtype, written) for name, size, written in sizes)
    return print_llvm([Kernel("product", arguments, [call, Return()], dtype)], cpu_target(), 1, ())


sizes = st.sampled_from((1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 23, 64, 130))


@given(sizes, sizes, sizes, st.booleans(), st.booleans(), st.sampled_from(("float64", "float32")))
def test_a_product_of_any_shape_is_right(m, n, k, flip_a, flip_b, dtype):
    rng = np.random.default_rng(m + 200 * n + 40_000 * k)
    a, b = rng.normal(size=(k, m) if flip_a else (m, k)), rng.normal(size=(n, k) if flip_b else (k, n))
    a, b, c = a.astype(dtype), b.astype(dtype), np.full((m + 1, n), 7.0, dtype)
    run, _library = compiled(product_text(m, n, k, flip_a, flip_b, dtype), "product", 4)
    run(a.ctypes.data, b.ctypes.data, c.ctypes.data, None)
    wanted = (a.T if flip_a else a).astype(float) @ (b.T if flip_b else b).astype(float)
    np.testing.assert_allclose(c[:m], wanted, rtol=0, atol=8 * np.finfo(dtype).eps * k)
    assert (c[m] == 7.0).all()


@pytest.mark.parametrize("shape", [(20, 50, 3), (512, 2, 64), (3, 64, 512), (64, 2, 512), (100, 100, 100), (3, 3, 3)])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_small_products_call_no_blas(shape, flips):
    assert "dgemm" not in product_text(*shape, *flips)


def test_large_products_call_blas():
    assert "dgemm" in product_text(100, 784, 100, False, False)


# ---- functions


@pytest.fixture(scope="module", params=inline_math.INLINED)
def inlined(request):
    """(exact function, {lanes: the function of an array})"""
    return getattr(mpmath, request.param), {lanes: over_arrays(request.param, lanes) for lanes in (1, 4)}


def over_arrays(name, lanes):
    kind, symbol = ("double" if lanes == 1 else f"<{lanes} x double>"), inline_math.symbol(name, lanes)
    declared = "\n".join(f"declare {signature}" for signature in inline_math.intrinsics(lanes).values())
    text = f"""{inline_math.definition(name, lanes)}
{declared}
define void @apply(ptr %x, ptr %y) {{
  %v = load {kind}, ptr %x, align 8
  %w = call {kind} @{symbol}({kind} %v)
  store {kind} %w, ptr %y, align 8
  ret void
}}"""
    run, library = compiled(text, "apply", 2)

    def apply(x):
        x = np.array(x, float)
        y, step = np.empty_like(x), 8 * lanes
        for k in range(0, x.nbytes, step):
            run(x.ctypes.data + k, y.ctypes.data + k)
        return y

    apply.library = library
    return apply


numbers = st.floats(allow_subnormal=True) | st.floats(-2, 2) | st.floats(-40, 40)


@given(st.lists(numbers, min_size=4, max_size=4))
def test_an_inlined_function_is_right_to_three_units_in_the_last_place(inlined, values):
    exact, forms = inlined
    found = forms[4](values)
    assert found.tobytes() == forms[1](values).tobytes()  # one element is computed as its neighbours are
    for x, y in zip(values, found.tolist(), strict=True):
        with mpmath.workprec(120):
            wanted = exact(mpmath.mpf(x))
            if not mpmath.isfinite(wanted) or abs(wanted) > np.finfo(float).max:
                assert np.array_equal(y, float(wanted), equal_nan=True)
            else:
                assert abs(mpmath.mpf(y) - wanted) <= 3 * np.spacing(abs(float(wanted)))


def test_tanh_keeps_the_sign_of_zero():
    assert np.signbit(over_arrays("tanh", 4)([-0.0, 0.0, -5e-324, 5e-324])).tolist() == [True, False, True, False]
