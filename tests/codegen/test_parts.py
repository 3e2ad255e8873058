"""Large kernels are calls of their parts, and compute the same bits."""

import numpy as np
import pytest
from array_functions import FUNCTIONS, traced

from odec.codegen import parts
from odec.codegen.compile import program
from odec.codegen.kernel import Allocate, Call, Return
from odec.codegen.lower_array import lower_array


def layers(y, w):
    for _ in range(6):
        y = np.tanh(y.reshape(4, 5) @ w + np.cumsum(y).reshape(4, 5)).reshape(-1)
    return y


def scalars_between(y, w):
    """Sums that later loops read, of the start and of the loop before."""
    first = y.sum()
    for _ in range(8):
        y = np.sin(y) * first + y.max()
        y = np.roll(y, 1) * w[0, 0]
    return y, first + y.sum()


def compiled(function, name):
    graph = traced(function, {"y": (20,), "w": (5, 5)})
    kernel = lower_array(graph)
    return kernel, program(name, lambda: [kernel]).kernels[kernel.name]


def results(function, name):
    kernel, code = compiled(function, name)
    given = [np.random.default_rng(k).normal(size=size) for k, size in enumerate((20, 25))]
    found = [np.full(a.size, np.nan) for a in kernel.arguments if a.written]
    code(*given, *found)
    return found


@pytest.mark.parametrize("function", [layers, scalars_between])
def test_parts_compute_the_bits_of_the_whole(function, monkeypatch):
    monkeypatch.setattr(parts, "MOST_LOOPS", 10**6)
    whole = results(function, f"{function.__name__} whole")
    monkeypatch.setattr(parts, "MOST_LOOPS", 1)
    found = results(function, f"{function.__name__} in parts")
    for a, b in zip(whole, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_small_kernel_stays_whole():
    kernel = lower_array(traced(lambda y: np.tanh(y) + 1.0, {"y": (20,)}))
    assert parts.in_parts(kernel) is kernel


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parts_hold_every_statement_once_and_what_it_needs(name, monkeypatch):
    monkeypatch.setattr(parts, "MOST_LOOPS", 1)
    kernel = lower_array(traced(*FUNCTIONS[name]))
    made = parts.in_parts(kernel)
    pieces = [part.body for part in made.callees] or [kernel.body]
    computing = [s for body in pieces for s in body if not isinstance(s, (Allocate, Return))]
    assert list(map(id, computing)) == [id(s) for s in kernel.body if not isinstance(s, (Allocate, Return))]
    elsewhere = {n for s in kernel.body for n in parts._made(s)}
    for body in pieces:
        there = {n for s in body for n in parts._made(s)}
        assert not {n for s in body for n in parts._read(s)} & (elsewhere - there)


def test_a_deep_network_has_many_parts():
    kernel = lower_array(traced(layers, {"y": (20,), "w": (5, 5)}))
    made = parts.in_parts(kernel)
    assert len(made.callees) > 2 and {type(s) for s in made.body} == {Call, Return}
