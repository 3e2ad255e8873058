"""Where buffers lie: each memory is used again as soon as what it held has been read, and never before."""

import numpy as np
import pytest
from array_functions import traced
from hypothesis import given
from hypothesis import strategies as st

import odec
from odec.codegen.kernel import Assign, Element, Index, Local, Loop, work_for
from odec.codegen.lower_array import lower_array
from odec.codegen.print_python import python_function
from odec.codegen.workspace import ALIGNMENT, aligned, place_buffers
from odec.graph.op import OPS
from odec.integrate.buffers import PLACES, Buffers
from odec.steppers.methods import method_named

N = 4096


def vectors(function, outputs=1):
    """How many vectors of N elements the workspace of a function of y (N,) has."""
    kernel = lower_array(traced(function, {"y": (N,)}))
    assert sum(a.written for a in kernel.arguments) == outputs
    return kernel.work_size / N


# ---- laws ------------------------------------------------------------------------------------------------

# None has values or slopes much above 1, so that a chain of nine keeps 12 digits.
STEPS = {
    "scaled": lambda x, y: np.tanh(x) * 0.5 + y,
    "shifted": lambda x, y: np.tanh(np.roll(x, 1)) + y,
    "reversed": lambda x, y: np.sin(x[::-1]) - y,
    "mixed": lambda x, y: np.cos(np.stack([x, y]).T.reshape(-1)[:6]) + x,
    "summed": lambda x, y: np.tanh(y) + np.tanh(np.cumsum(x) / 6.0),
    "product": lambda x, y: np.outer(np.sin(x), y) @ y / (1.0 + y @ y),
    "ends": lambda x, y: np.concatenate([np.tanh(y[:2]), np.tanh(x[2:])]),
}
steps = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=9
)


@given(steps, st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_no_buffer_is_written_while_another_is_read_there(program, outputs, seed):
    """Chains in which every value is read again, as Python against NumPy."""

    def chain(y):
        values = [y, np.sin(y)]
        for name, a, b in program:
            values.append(STEPS[name](values[-1 - a % len(values)], values[-1 - b % len(values)]))
        return tuple(values[-outputs:])

    graph = traced(chain, {"y": (6,)})
    kernel, y = lower_array(graph), np.random.default_rng(seed).normal(size=6)
    found = [np.full(6, np.nan) for _ in graph.outputs]
    python_function(kernel)(y, *found)
    for result, expected in zip(found, graph.evaluate(y).values(), strict=True):
        assert result == pytest.approx(expected, rel=1e-12, abs=1e-12)


# ---- what is shared --------------------------------------------------------------------------------------


def test_a_chain_of_loops_needs_one_vector():
    def chain(y):
        x = np.tanh(y)
        for _ in range(5):
            x = np.roll(x, 1) * x
            x = np.tanh(x) * np.cumsum(x)[-1]
        return x + np.roll(x, 2)

    assert vectors(chain) <= 1.01


def test_early_buffers_live_in_the_output():
    def twice(y):
        return np.cumsum(np.cumsum(np.cumsum(np.cumsum(y))))

    assert vectors(twice) <= 1.01


# ---- the rule, statement by statement ----------------------------------------------------------------------


def place(*statements, count=64, outputs=()):
    """The workspace of statements over buffers a, b, ... in vectors of `count` elements."""
    sizes, rooms = ({name: (count, "float64") for name in names} for names in ("ab", outputs))
    return place_buffers(list(statements), sizes, rooms, "float64") / count


def at(buffer, offset=0, stride=1):
    return Element(buffer, Index(offset, (("i", stride),)))


def loop(target, *reads, extent=64, before=()):
    body = [*before, Assign(target, OPS["add"], reads)]
    return Loop("i", extent, body)


FIRST, LAST = loop(at("a"), at("y"), at("y")), loop(at("out"), at("b"), at("b"))


@pytest.mark.parametrize(
    ("middle", "shared"),
    [
        (loop(at("b"), at("a"), at("y")), True),
        (loop(at("b"), at("a"), at("a")), True),
        (loop(at("b"), at("a", 1), at("y")), False),  # a neighbour, which may have been written
        (loop(at("b"), at("a", 63, -1), at("y")), False),
        (loop(at("b"), at("a"), at("a", 1)), False),
        (loop(at("b", 0, 0), at("a"), at("y")), False),  # one element, written again and again
        (loop(at("b"), at("a"), at("b")), False),  # what it was before is read
        (Loop("i", 64, [Assign(at("b"), None, (at("y"),)), Assign(Local("x", "float64"), None, (at("a"),))]), False),
        (Loop("i", 8, [Loop("j", 8, [Assign(Element("b", Index(0, (("i", 8), ("j", 1)))), OPS["add"],
                                            (Element("a", Index(0, (("i", 8), ("j", 1)))), at("y")))])]), True),
        (Loop("i", 8, [Loop("j", 8, [Assign(Element("b", Index(0, (("i", 7), ("j", 1)))), OPS["add"],
                                            (Element("a", Index(0, (("i", 7), ("j", 1)))), at("y")))])]), False),
    ],
)  # fmt: skip
def test_which_loops_may_write_where_they_read(middle, shared):
    assert place(FIRST, middle, LAST) == (1 if shared else 2)


def test_a_buffer_that_is_read_later_keeps_its_place():
    assert place(FIRST, loop(at("b"), at("a"), at("y")), loop(at("out"), at("b"), at("a"))) == 2


def test_buffers_lie_in_an_output_until_it_is_written():
    early = FIRST, loop(at("b"), at("a", 1), at("y"))
    assert place(*early, loop(at("out"), at("b"), at("y")), outputs=["out"]) == 1  # a in out, or b
    assert place(*early, loop(at("out"), at("b", 1), at("y")), outputs=["out"]) == 1  # a in out
    assert place(FIRST, loop(at("out"), at("a"), at("y")), outputs=["out"]) == 0
    assert place(FIRST, loop(at("out"), at("a", 1), at("y")), outputs=["out"]) == 1
    written = loop(at("out"), at("y"), at("y"))
    assert place(written, FIRST, loop(at("out2"), at("a"), at("y")), outputs=["out"]) == 1


def test_a_step_in_float32_stays_within_its_workspace():
    weights = np.full((8, 8), 0.1, np.float32)
    system = odec.dynamics(lambda t, y, w: np.tanh(y @ w)).bind(weights, (weights,))
    advance = system.solver(method_named("tsit5")).kernel("advance")
    size = work_for([advance], "float32")
    assert advance.dtype == "float64" and size >= advance.work_size > 0  # times are float64
    work = np.full(size + 64, 7.0, np.float32)
    arrays = [np.ones(a.size, a.dtype) for a in advance.arguments]
    advance._call(*[a.ctypes.data for a in arrays], work.ctypes.data)
    assert (work[size:] == 7.0).all() and (work[size // 2 : size] != 7.0).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_buffers_of_a_solve_begin_cache_lines(dtype):
    system = odec.dynamics(lambda t, y: -y).bind(np.ones(5, dtype), dtype=dtype)
    for size in (1, 3, 1000):
        assert aligned(size, dtype).shape == (size,) and aligned(size, dtype).ctypes.data % ALIGNMENT == 0
    buffers = Buffers(system.solver(method_named("tsit5")), True, None)
    for name, place in PLACES.items():
        if name in ("lanes.y_next", "lanes.f0", "lanes.k", "lanes.q", "lanes.work"):
            assert buffers.arguments[place] % ALIGNMENT == 0, name
