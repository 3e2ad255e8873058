"""The goals of the array layout, measured: python tests/benchmarks/array_kernels.py

Both sides of a row call the same OpenBLAS with the same threads (set OPENBLAS_NUM_THREADS on a busy
machine), in alternation; ratios are medians over the pairs. Accuracy is checked before anything is timed.
"""

from __future__ import annotations

import ctypes
import statistics
import time

import numpy as np

import odec
from odec.codegen import blas
from odec.codegen.compile import Library, object_code
from odec.codegen.lower import lower
from odec.codegen.print_llvm import print_llvm
from odec.codegen.targets import cpu_target
from odec.transforms.vjp import vjp

kept = []
BATCH, WIDTH, HIDDEN, POINTS = 100, 784, 100, 10_000


@odec.dynamics
def network(t, z, w1, b1, w2, b2):
    return np.tanh(z @ w1 + b1) @ w2 + b2


@odec.dynamics
def heat(t, y):
    d = np.zeros_like(y)
    d[1:-1] = y[2:] - 2 * y[1:-1] + y[:-2]
    return d


@odec.dynamics
def ring(t, y):
    return np.roll(y, 1) - 2 * y + np.roll(y, -1)


def row(case, goal, measured):
    print(f"| {case} | {goal} | {measured} |", flush=True)


def compiled(graphs):
    """[(call of the machine code on arrays, kernel)] in one module, and the seconds it took."""
    began = time.perf_counter()
    kernels = [lower(graph, name, "array") for name, graph in graphs.items()]
    text = print_llvm(kernels, cpu_target())
    library = Library(object_code(text), blas.symbols(blas.symbols_in(text)))
    seconds = time.perf_counter() - began

    def bound(kernel):
        pointers = [ctypes.c_void_p] * (len(kernel.arguments) + 1)
        function = ctypes.CFUNCTYPE(None, *pointers)(library.address(kernel.name))

        def bind(*arrays):
            arrays = (*arrays, np.empty(kernel.work_size, kernel.dtype))
            addresses = [a.ctypes.data for a in arrays]
            kept.append((library, arrays))  # the code and the arrays live as long as the function
            return lambda: function(*addresses)

        return bind

    return [bound(k) for k in kernels], seconds


def ratio(theirs, ours, repeats=60, calls=5):
    """Median of theirs / ours over pairs of runs, and the median seconds of each."""

    def seconds(function):
        began = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - began) / calls

    theirs(), ours()
    pairs = [(seconds(theirs), seconds(ours)) for _ in range(repeats)]
    return statistics.median(a / b for a, b in pairs), *map(statistics.median, zip(*pairs, strict=True))


def network_rates():
    random = np.random.default_rng(0)
    z = random.normal(size=(BATCH, WIDTH))
    w1, w2 = random.normal(size=(WIDTH, HIDDEN)) / 28, random.normal(size=(HIDDEN, WIDTH)) / 10
    b1, b2 = random.normal(size=HIDDEN), random.normal(size=WIDTH)
    t, g = np.zeros(1), random.normal(size=(BATCH, WIDTH))
    p = np.concatenate([w.ravel() for w in (w1, b1, w2, b2)])
    began = time.perf_counter()
    graph = network.bind(z, (w1, b1, w2, b2)).graph
    (rhs, pullback), seconds = compiled({"rhs": graph, "vjp": vjp(graph)})
    seconds = time.perf_counter() - began
    rate, t_bar, z_bar, p_bar = np.empty(z.size), np.empty(1), np.empty(z.size), np.empty(p.size)
    run_rhs, run_vjp = rhs(t, z.ravel(), p, rate), pullback(t, z.ravel(), p, g.ravel(), t_bar, z_bar, p_bar)
    run_rhs(), run_vjp()

    h = np.tanh(z @ w1 + b1)
    dh = (g @ w2.T) * (1 - h * h)
    parts = [(z.T @ dh).ravel(), dh.sum(axis=0), (h.T @ g).ravel(), g.sum(axis=0)]
    assert np.allclose(rate, (h @ w2 + b2).ravel(), rtol=1e-12, atol=1e-12)
    assert np.allclose(z_bar, (dh @ w1.T).ravel(), rtol=1e-12, atol=1e-11)
    assert np.allclose(p_bar, np.concatenate(parts), rtol=1e-12, atol=1e-11)

    hidden, wide = np.empty((BATCH, HIDDEN)), np.empty((BATCH, WIDTH))
    tall, flat = np.empty((WIDTH, HIDDEN)), np.empty((HIDDEN, WIDTH))

    def two_products():
        np.matmul(z, w1, out=hidden)
        np.matmul(h, w2, out=wide)

    def five_products():
        np.matmul(z, w1, out=hidden)
        np.matmul(g, w2.T, out=hidden)
        np.matmul(h.T, g, out=flat)
        np.matmul(dh, w1.T, out=wide)
        np.matmul(z.T, dh, out=tall)

    for case, goal, products, ours in (("rhs", 80, two_products, run_rhs), ("VJP", 70, five_products, run_vjp)):
        share, theirs, mine = ratio(products, ours)
        measured = f"{100 * share:.0f} % ({mine * 1e6:.0f} us, products {theirs * 1e6:.0f} us)"
        row(f"network {WIDTH}-{HIDDEN}-{WIDTH}, batch {BATCH}: {case} against bare np.matmul", f"{goal} %", measured)
    row("the same: traced, differentiated and compiled", "0.8 s", f"{seconds:.2f} s")


def stencils():
    import numba

    @numba.njit
    def heat_by_hand(y, d):
        d[0] = d[-1] = 0.0
        for i in range(1, y.size - 1):
            d[i] = y[i + 1] - 2 * y[i] + y[i - 1]

    @numba.njit
    def ring_by_hand(y, d):
        n = y.size
        d[0] = y[n - 1] - 2 * y[0] + y[1]
        d[n - 1] = y[n - 2] - 2 * y[n - 1] + y[0]
        for i in range(1, n - 1):
            d[i] = y[i - 1] - 2 * y[i] + y[i + 1]

    y, found, expected = np.random.default_rng(0).normal(size=POINTS), np.empty(POINTS), np.empty(POINTS)
    for model, by_hand in ((heat, heat_by_hand), (ring, ring_by_hand)):
        (rhs,), _ = compiled({"rhs": model.bind(y).graph})
        ours = rhs(np.zeros(1), y, np.zeros(0), found)
        ours(), by_hand(y, expected)
        assert np.allclose(found, expected, rtol=1e-13, atol=1e-13)
        share, theirs, mine = ratio(lambda by_hand=by_hand: by_hand(y, expected), ours, calls=200)
        measured = f"{1 / share:.2f} times ({mine * 1e6:.1f} us, by hand {theirs * 1e6:.1f} us)"
        row(f"{model.name}, {POINTS} points, rhs against an njit loop by hand", "1.2 times", measured)


if __name__ == "__main__":
    print("| case | goal | measured |\n|---|---|---|")
    network_rates()
    stencils()
