"""Kernels for several trajectories side by side: a lane gives the numbers of a kernel for one."""

import ctypes

import numpy as np
import pytest
from array_functions import traced

from odec.codegen.compile import Library, object_code, program
from odec.codegen.lower_array import lower_array
from odec.codegen.lower_scalar import lower_scalar
from odec.codegen.print_llvm import print_llvm
from odec.codegen.targets import cpu_target
from odec.errors import CompileError
from odec.graph.function import Function
from odec.graph.node import constant
from odec.ops.call import call

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
            arrays[k][...] = parts[0] if arguments[k].shared else np.stack(parts, axis=-1)
        work = np.full(kernel.work_size * self.lanes, np.nan, kernel.dtype)
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(arrays) + 1))(self._library.address(name))
        function(*[a.ctypes.data for a in arrays], work.ctypes.data)
        outputs = [a for a, argument in zip(arrays, arguments, strict=True) if argument.written]
        return [[out[..., lane] for out in outputs] for lane in range(self.lanes)]


def drawn(graph, seeds):
    """A list of arrays for each lane."""
    shapes = [(n.shape, n.dtype) for n in graph.inputs.values()]
    return [[np.random.default_rng(s).normal(size=shape).astype(kind) for shape, kind in shapes] for s in seeds]


def check(found, graph, members):
    """Each lane has what NumPy gives for its member."""
    for outputs, member in zip(found, members, strict=True):
        for result, value in zip(outputs, graph.evaluate(*member).values(), strict=True):
            scale = 1 + np.max(np.abs(value), initial=0.0)
            error = np.max(np.abs(result - value), initial=0.0)
            assert error <= TOLERANCE[result.dtype.name] * scale, error


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
