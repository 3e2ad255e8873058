"""Kernels for several trajectories side by side: a lane gives the numbers of a kernel for one."""

import ctypes
import functools
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from array_functions import FUNCTIONS, traced
from hypothesis import given
from hypothesis import strategies as st

import odec
from odec.codegen.compile import Library, object_code, optimised, program
from odec.codegen.lower import lower
from odec.codegen.lower_array import lower_array
from odec.codegen.lower_scalar import lower_scalar
from odec.codegen.print_llvm import print_llvm
from odec.codegen.print_python import print_python
from odec.codegen.targets import REGISTERS, Target, best_lanes, cpu_target
from odec.errors import CompileError
from odec.graph.function import Function
from odec.graph.node import constant, input_node
from odec.graph.op import OPS
from odec.ops.call import call
from odec.ops.families import as_float
from odec.ops.structure import element
from odec.steppers.methods import method_named
from odec.steppers.step import step_function
from odec.transforms.vjp import vjp

# Library functions differ by up to 4 ulp between scalar and vector forms, sums of some hundred terms by their order.
TOLERANCE = {"float64": 1e-12, "float32": 1e-4}


class Wide:
    """Kernels compiled for `lanes`, without the disk cache; run(name, members) takes what each lane reads."""

    def __init__(self, kernels, lanes, shared=()):
        self.kernels, self.lanes, self.shared = {k.name: k for k in kernels}, lanes, shared
        self.text = print_llvm(kernels, cpu_target(), lanes, shared)
        self._library = Library(object_code(self.text))

    def run(self, name, members):
        """Outputs of each lane, from a list of arrays for each lane."""
        kernel = self.kernels[name]
        arguments = [a.widened(self.lanes, self.shared) for a in kernel.arguments]
        arrays = [np.full(a.shape, np.nan, a.dtype) for a in arguments]
        for k, parts in enumerate(zip(*members, strict=True)):
            arrays[k][...] = parts[0] if arguments[k].shared else np.stack(parts, axis=-1).reshape(arrays[k].shape)
        work = np.full(kernel.work_size * self.lanes, np.nan, kernel.dtype)
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(arrays) + 1))(self._library.address(name))
        function(*[a.ctypes.data for a in arrays], work.ctypes.data)
        outputs = [
            array.reshape(*argument.shape, self.lanes)
            for array, argument in zip(arrays, kernel.arguments, strict=True)
            if argument.written
        ]
        return [[out[..., lane] for out in outputs] for lane in range(self.lanes)]


def drawn(graph, seeds):
    """A list of arrays for each lane."""
    shapes = [(n.shape, n.dtype) for n in graph.inputs.values()]
    return [[np.random.default_rng(s).normal(size=shape).astype(kind) for shape, kind in shapes] for s in seeds]


def check(found, graph, members):
    """Each lane has what NumPy gives for its member, to the coarsest precision of the outputs."""
    tolerance = max(TOLERANCE[n.dtype] for n in graph.outputs.values())
    for outputs, member in zip(found, members, strict=True):
        for result, value in zip(outputs, graph.evaluate(*member).values(), strict=True):
            scale = 1 + np.max(np.abs(value), initial=0.0)
            error = np.max(np.abs(result - value), initial=0.0)
            assert error <= tolerance * scale, error


# ---- arguments that all lanes share ------------------------------------------------------------------------


def pull(t, y, p):
    return np.sin(t + y) * p[:3] - np.where(p[3] > 0.0, y * p[3:], np.exp(p[4]))


def members_with_one(graph, lanes, *names):
    members = drawn(graph, range(lanes))
    for k, name in enumerate(graph.inputs):
        for member in members:
            member[k] = members[0][k] if name in names else member[k]
    return members


@pytest.mark.parametrize("lanes", [4, 8])
@pytest.mark.parametrize("lower", [lower_scalar, lower_array])
def test_shared_buffers_hold_one_number_an_element(lower, lanes):
    graph = traced(pull, {"t": (), "y": (3,), "p": (6,)})
    members = members_with_one(graph, lanes, "p", "t")
    check(Wide([lower(graph)], lanes, ("p", "t")).run("pull", members), graph, members)
    members = members_with_one(graph, lanes, "p")
    check(Wide([lower(graph)], lanes, ("p",)).run("pull", members), graph, members)


def calling_kernels():
    """Two stages by calls of a kernel, which reads its p where the caller reads p, and once where it reads y."""
    f = traced(pull, {"t": (), "y": (3,), "p": (6,)})
    t, y, p = f.inputs.values()
    k1 = call(f, t, y, p)
    own = traced(lambda y: np.concatenate([y, y * 2]), {"y": (3,)})(y)["out"]
    graph = Function("stages", f.inputs, {"y1": y + call(f, t + 0.1, y + 0.5 * k1, p) + call(f, t, y, own)})
    return f, graph


def test_called_kernels_share_what_the_caller_shares():
    f, graph = calling_kernels()
    members = members_with_one(graph, 4, "p")
    wide = Wide([lower_array(f, "rhs"), lower_array(graph)], 4, ("p",))
    check(wide.run("stages", members), graph, members)
    check(wide.run("rhs", members), f, members)
    assert wide.text.count("define void") == 4  # f as a kernel of its own, the stages, and f called in two ways


def test_tables_reach_called_kernels_as_they_are():
    f = traced(pull, {"t": (), "y": (3,), "p": (6,)})
    t, y, _ = f.inputs.values()
    graph = Function("driven", {"t": t, "y": y}, {"out": call(f, t, y, constant(np.arange(6.0) / 4, "float64"))})
    members = drawn(graph, range(4))
    check(Wide([lower_array(graph)], 4).run("driven", members), graph, members)


def test_written_buffers_cannot_be_shared():
    graph = traced(pull, {"t": (), "y": (3,), "p": (6,)})
    with pytest.raises(CompileError, match="pull writes out, so each lane needs its own"):
        print_llvm([lower_scalar(graph)], cpu_target(), 4, ("out",))


def test_programs_know_their_lanes():
    graph = traced(pull, {"t": (), "y": (3,), "p": (6,)})
    wide = program("test_programs_know_their_lanes", lambda: [lower_array(graph)], 4, ("p",)).kernels["pull"]
    assert wide.lanes == 4
    assert [(a.size, a.shape, a.shared) for a in wide.arguments] == [
        (4, (4,), False), (12, (3, 4), False), (6, (6,), True), (12, (3, 4), False),
    ]  # fmt: skip
    members = members_with_one(graph, 4, "p")
    t, y, p = zip(*members, strict=True)
    out = np.empty((3, 4))
    wide(np.stack(t), np.ascontiguousarray(np.transpose(y)), p[0], out)
    check([[row] for row in out.T], graph, members)
    with pytest.raises(ValueError, match="y needs 12"):
        wide(np.stack(t), y[0], p[0], out)
    one = program("test_programs_know_their_lanes", lambda: [lower_array(graph)]).kernels["pull"]
    assert one.lanes == 1 and one.arguments[1].size == 3


# ---- a lane by itself ----------------------------------------------------------------------------------------

PARAMS = {
    "ipow": ({"exponent": 3}, {"exponent": -2}),
    "cast": ({"dtype": "float64"}, {"dtype": "float32"}),
    "pieces": ({"edges": (-1.0, 0.25, 2.0), "values": (0.5, -1.5, 3.0, 4.0)},),
}
DOUBLE_ONLY = ("rough_log2", "rough_exp2")  # work on the bits of doubles
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-310, 1e-300, 1e-40, 1e15, 1e30, 1e300, -1e300, 0.5, 710.0, -745.0)
WIDTHS = [("float64", 4), ("float64", 8), ("float32", 8), ("float32", 16)]


@functools.cache
def all_ops(dtype):
    """Every elementwise op as one Function of x, all arguments side by side; an output for each op."""
    cases = [(op, how) for op in OPS.values() if op.family == "elementwise" for how in PARAMS.get(op.name, ({},))]
    cases = [(op, how) for op, how in cases if dtype == "float64" or op.name not in DOUBLE_ONLY]
    x = input_node("x", (sum(len(op.domain) for op, _ in cases),), dtype)
    at, outputs = 0, {}
    for k, (op, how) in enumerate(cases):
        args = [element(x, at + i) for i in range(len(op.domain))]
        outputs[f"{op.name}_{k}"] = OPS["cast"](as_float(op(*args, **how)), dtype=dtype)
        at += len(op.domain)
    return Function("all_ops", {"x": x}, outputs)


@functools.cache
def all_ops_wide(dtype, lanes):
    return Wide([lower_scalar(all_ops(dtype))], lanes)


def usual_points(dtype, lanes, random):
    """x for each lane, within the domains of the ops."""
    bounds, cases = [], [name.rsplit("_", 1)[0] for name in all_ops(dtype).outputs]
    for name in cases:
        bounds += OPS[name].domain
    low, high = np.transpose(bounds)
    return [random.uniform(low, high).astype(dtype) for _ in range(lanes)]


def any_points(dtype, lanes, random):
    """x for each lane, half of it special values."""
    points = usual_points(dtype, lanes, random)
    with np.errstate(over="ignore"):
        return [np.where(random.random(x.size) < 0.5, random.choice(SPECIAL, x.size).astype(dtype), x) for x in points]


@pytest.mark.parametrize(("dtype", "lanes"), WIDTHS)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_op_gives_in_lanes_what_it_gives_alone(dtype, lanes, seed):
    points = usual_points(dtype, lanes, np.random.default_rng(seed))
    wide = np.array(all_ops_wide(dtype, lanes).run("all_ops", [[x] for x in points]))
    alone = np.array([all_ops_wide(dtype, 1).run("all_ops", [[x]])[0] for x in points])
    names = list(all_ops(dtype).outputs)
    smallest = np.array([name.startswith("logaddexp") for name in names], dtype)  # two terms may cancel there
    error = np.abs(wide - alone) / np.spacing(np.maximum(np.abs(alone), smallest))
    worst = np.argmax(np.max(error, axis=0))
    assert np.max(error) <= 8, (names[worst], np.max(error))  # two functions of 4 ulp, one in the other


@pytest.mark.parametrize(("dtype", "lanes"), WIDTHS)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_lane_depends_neither_on_its_place_nor_on_its_neighbours(dtype, lanes, seed):
    random, wide = np.random.default_rng(seed), all_ops_wide(dtype, lanes)
    points, others = (any_points(dtype, lanes, random) for _ in range(2))
    places = random.permutation(lanes)
    found = np.array(wide.run("all_ops", [[x] for x in points]))
    moved = np.array(wide.run("all_ops", [[points[k]] for k in places]))
    np.testing.assert_array_equal(moved, found[places])
    lane = int(random.integers(lanes))
    mixed = np.array(wide.run("all_ops", [[points[k] if k == lane else x] for k, x in enumerate(others)]))
    np.testing.assert_array_equal(mixed[lane], found[lane])


# ---- functions of vectors ------------------------------------------------------------------------------------

X86 = Target("x86", {"float64": 4, "float32": 8}, tuple((size, letter) for _, size, letter, _ in REGISTERS))


def called(dtype, lanes, forms):
    """How often each function of a vector is called for a tangent in so many lanes."""
    kernel = lower_scalar(traced(np.tanh, {"y": ()}, dtype))
    text = print_llvm([kernel], replace(X86, forms=forms), lanes)
    return dict(Counter(re.findall(r"call \w+ [^@]*@(\w+)\(", text)))


def test_vectors_are_cut_to_the_functions_of_the_machine():
    avx512, avx2, none = X86.forms, X86.forms[1:], ()
    assert called("float64", 8, avx512) == {"_ZGVeN8v_tanh": 1}
    assert called("float64", 8, avx2) == {"_ZGVdN4v_tanh": 2}
    assert called("float32", 16, avx512) == {"_ZGVeN16v_tanhf": 1}
    assert called("float32", 16, avx2) == {"_ZGVdN8v_tanhf": 2}
    assert called("float64", 4, avx512) == {"_ZGVdN4v_tanh": 1}
    assert called("float64", 12, avx512) == {"_ZGVdN4v_tanh": 3}  # parts alike, or a lane would know its place
    assert called("float64", 4, none) == {"tanh": 4}


def test_an_ensemble_takes_a_power_of_two_of_lanes():
    assert best_lanes("float64") in (4, 8, 16)
    assert best_lanes("float32") == 2 * best_lanes("float64")


# ---- array code ----------------------------------------------------------------------------------------------


BY_LAPACK = ("systems", "single_precision")


@functools.cache
def array_kernels(lanes):
    """The functions of array_functions.py, in 4 lanes with a derivative, but for LAPACK's: {name: graph}, Wide."""
    graphs = {}
    for name, (function, shapes, dtype) in FUNCTIONS.items():
        graph = traced(function, shapes, dtype)
        graphs |= {name: graph, f"{name}_vjp": vjp(graph)} if lanes == 4 else {name: graph}
    kernels = [lower_array(g, name) for name, g in graphs.items() if name.removesuffix("_vjp") not in BY_LAPACK]
    return graphs, Wide(kernels, lanes)


@pytest.mark.parametrize("lanes", [4, 8])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_array_code_gives_in_each_lane_what_numpy_gives(name, lanes):
    graphs, wide = array_kernels(lanes)
    names = [n for n in (name, f"{name}_vjp") if n in wide.kernels]
    assert names or name in BY_LAPACK
    for n in names:
        members = drawn(graphs[n], range(lanes))
        check(wide.run(n, members), graphs[n], members)


PRODUCTS = [(30, 40, 50), (31, 27, 33), (26, 26, 26), (3, 100, 101)]


@pytest.mark.parametrize("shared", [(), ("w",), ("y",)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("m", "k", "n"), PRODUCTS)
def test_products_that_blas_has_are_loops_for_lanes(m, k, n, dtype, shared):
    graph = traced(lambda y, w: (y @ w, w.T @ y.T), {"y": (m, k), "w": (k, n)}, dtype)
    kernel = lower_array(graph, "products")
    assert "gemm" in print_python(kernel)
    wide = Wide([kernel], 4, shared)
    assert "odec.gemm" not in wide.text
    members = members_with_one(graph, 4, *shared)
    check(wide.run("products", members), graph, members)


def test_kernels_that_call_lapack_say_so():
    large = traced(np.linalg.solve, {"a": (40, 40), "b": (40,)})
    outer = Function("outer", large.inputs, {"x": call(large, *large.inputs.values()) * 2.0})
    with pytest.raises(CompileError, match="gesv takes one trajectory at a time"):
        print_llvm([lower_array(outer)], cpu_target(), 4)


# ---- steps of methods ------------------------------------------------------------------------------------------


def lorenz(t, y, sigma, rho, beta):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


def driven(t, y, damping, strength):
    return [y[1], strength * np.sin(t) * np.exp(-(y[0] ** 2)) - damping * y[1] - np.sin(y[0])]


def heat(t, y, k):
    d = np.zeros_like(y)
    d[1:-1] = k * (y[2:] - 2 * y[1:-1] + y[:-2])
    return d


def network(t, y, w1, w2):
    return np.tanh(y.reshape(24, 30) @ w1).reshape(-1) @ w2


def step_of(model, y, *parameters):
    """A step of tsit5 as a graph, with its p."""
    system = odec.dynamics(model).bind(y, parameters)
    return step_function(system.graph, method_named("tsit5")), system.flat_parameters(list(parameters))


STEPS = {
    "lorenz": lambda: step_of(lorenz, np.ones(3), 10.0, 28.0, 8 / 3),
    "driven": lambda: step_of(driven, np.ones(2), 0.1, 1.5),
    "single": lambda: step_of(driven, np.ones(2, np.float32), 0.1, 1.5),
    "heat": lambda: step_of(heat, np.ones(40), 0.7),
    "network": lambda: step_of(network, np.ones(720), np.full((30, 40), 0.1), np.full((960, 720), 0.01)),
}


def step_members(graph, p, lanes, alike):
    """Arguments of a step for each lane: states that differ, parameters too where they are not alike."""
    members = []
    for seed in range(lanes):
        random, found = np.random.default_rng(seed), {}
        for name, node in graph.inputs.items():
            found[name] = np.asarray(random.normal(size=node.shape))
        near = p if alike else p * (1 + 0.1 * random.random(p.shape))
        found |= {"h": np.full((), 0.01 * (seed + 1)), "p": near}
        found |= {name: np.full(graph.inputs[name].shape, 1e-3) for name in ("rtol", "atol")}
        members.append([found[name].astype(node.dtype) for name, node in graph.inputs.items()])
    return members


@pytest.mark.parametrize("lanes", [4, 8])
@pytest.mark.parametrize(
    ("name", "layout"),
    [("lorenz", "scalar"), ("driven", "scalar"), ("single", "scalar"), ("heat", "array"), ("network", "array")],
)
def test_steps_run_side_by_side(name, layout, lanes):
    graph, p = STEPS[name]()
    kernel = lower(graph, "step", layout)
    for shared in (("rtol", "atol"), ("rtol", "atol", "p")):
        members = step_members(graph, p, lanes, "p" in shared)
        check(Wide([kernel], lanes, shared).run("step", members), graph, members)


@pytest.mark.parametrize("name", ["lorenz", "driven"])
def test_a_step_does_not_depend_on_its_lane(name):
    graph, p = STEPS[name]()
    members = step_members(graph, p, 8, alike=False)
    members[3][list(graph.inputs).index("y")][...] = np.nan
    wide, places = Wide([lower(graph, "step")], 8), [3, 0, 7, 1, 5, 2, 6, 4]
    found, moved = wide.run("step", members), wide.run("step", [members[k] for k in places])
    for lane, place in enumerate(places):
        for a, b in zip(moved[lane], found[place], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("lanes", [4, 8])
def test_a_step_stays_in_vectors(lanes):
    graph, _ = STEPS["lorenz"]()
    text = str(optimised(print_llvm([lower(graph, "step")], cpu_target(), lanes, ("rtol", "atol", "p"))))
    assert not re.search("extractelement|alloca|malloc", text)
    called_there = set(re.findall(r"call[^@\n]*@([\w.]+)\(", text))
    assert called_there <= {f"llvm.{name}.v{lanes}f64" for name in ("fabs", "maximum", "maxnum", "fmuladd")}
