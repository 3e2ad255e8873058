"""A model with shapes: its graph, the kernels derived from it, and calls of them on numbers."""

from __future__ import annotations

import inspect
import reprlib

import numpy as np

from odec.codegen.compile import CompiledKernel, assembly, optimised, program
from odec.codegen.lower import LAYOUTS, is_small, lower
from odec.codegen.print_llvm import print_llvm
from odec.codegen.print_python import print_python
from odec.codegen.targets import CUDA, best_lanes, cpu_target
from odec.errors import ArgumentError, counted, nearest
from odec.gradients.lane_step import lane_vjp
from odec.gradients.replay import first_residuals, kept_terms, kept_vjp, step_jvp, step_terms, step_vjp
from odec.gradients.stepwise import advance_vjp, first_size_vjp, size_vjp
from odec.graph.function import Function
from odec.graph.structure import Branch, Leaf, Structure
from odec.integrate.advance import advance_function
from odec.integrate.run import Solver
from odec.steppers.methods import method_named
from odec.steppers.step import check_fits, dense_function, step_function
from odec.steppers.taylor import INLINE, TaylorMethod
from odec.transforms.jacobian import divergence, jacobian_values
from odec.transforms.jvp import jvp
from odec.transforms.scalar import operation_count
from odec.transforms.sparsity import hessian_pattern, jacobian_pattern
from odec.transforms.taylor import taylor
from odec.transforms.vjp import vjp

LANGUAGES = ("python", "llvm", "asm", "ptx")
TARGETS = ("cpu", "python")


def load(path):
    """The System that `System.save` wrote to a file; LoadError for anything else. Runs no code of the file."""
    from odec.graph.saved import parse, system_from_json

    with open(path, "rb") as file:
        return System(*system_from_json(parse(file.read())))


class System:
    """A model bound to structures, shapes and a dtype.

    graph : Function (t: (), y: (n,), p: (m,)) -> dydt (n,); `str(graph)` lists it, `graph.draw()` draws it
    y_structure, p_structure : how y and the parameters (a dict by name) lie in the flat vectors y and p
    measured : how many of the first numbers of y the error norm of a solve is over; None for all
    quadratures : how many of the last numbers of y the right-hand side does not read
    """

    def __init__(self, name, graph, y_structure, p_structure, dtype, state=None, measured=None, quadratures=0):
        self.name, self.graph, self.dtype, self.state = name, graph, dtype, state
        self.measured, self.quadratures = measured, quadratures
        self.y_structure: Structure = y_structure
        self.p_structure: Structure = p_structure
        self._programs = {}
        self._patterns = {}
        self._solvers = {}
        self.event_kernels = {}  # ids of Events -> (the Events, their kernels)

    @property
    def parameters(self) -> Branch:
        """The parameters by name, as they lie in the flat vector p."""
        root = self.p_structure.root
        assert isinstance(root, Branch)
        return root

    def __repr__(self):
        y, p = self.y_structure.describe(), self.p_structure.describe()
        return f"<odec system {self.name}: y {y}, params {p}, {self.dtype}>"

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k not in ("graph", *_DERIVED)} | {
            "document": self._document()
        }

    def __setstate__(self, state):
        from odec.graph.saved import from_json

        document = state.pop("document")
        self.__dict__.update(state, graph=from_json(document["graph"]), **{k: {} for k in _DERIVED})

    def _document(self):
        from odec.graph.saved import system_to_json

        return system_to_json(self)

    # ---- what users evaluate

    def rhs(self, t, y, *params):
        """dy/dt at (t, y, params), in the structure of y."""
        (rate,) = self._evaluate("rhs", self._point(t, y, params))
        return self.y_structure.unflatten(rate)

    def jvp(self, t, y, *params, tangents):
        """The directional derivative of rhs along `tangents` = (dt, dy, dparams), in the structure of y.

        A tangent that is None is zero; dparams is a tuple in signature order or a dict by name.
        """
        names, seeds = [], []
        if not isinstance(tangents, tuple) or len(tangents) > 3:
            raise ArgumentError(
                f"{self.name}.jvp: tangents is {reprlib.repr(tangents)}; a tuple (dt, dy, dparams) is "
                "needed, None for zero."
            )
        dt, dy, dparams = (*tangents, *(None,) * (3 - len(tangents)))
        if dt is not None:
            names.append("t")
            seeds.append(_scalar(dt, "dt"))
        if dy is not None:
            names.append("y")
            seeds.append(self.y_structure.flatten(dy, f"{self.name}: dy", self.dtype))
        if dparams is not None and self.p_structure.size:
            names.append("p")
            seeds.append(self._parameter_tangent(dparams))
        if not names:
            return self.y_structure.unflatten(np.zeros(self.y_structure.size, self.dtype))
        (rate,) = self._evaluate("jvp", [*self._point(t, y, params), *seeds], wrt=tuple(names))
        return self.y_structure.unflatten(rate)

    def vjp(self, t, y, *params, cotangent):
        """(t_bar, y_bar, params_bar): the transposed Jacobian of rhs applied to `cotangent` (like y)."""
        bar = self.y_structure.flatten(cotangent, f"{self.name}: cotangent", self.dtype)
        t_bar, y_bar, p_bar = self._evaluate("vjp", [*self._point(t, y, params), bar])
        return float(t_bar[0]), self.y_structure.unflatten(y_bar), self._as_parameters(p_bar)

    def jacobian(self, t, y, *params, wrt="y", sparse=False):
        """d rhs / d wrt at a point, y and rhs flat: (n, n) for y, (n, size) for an array parameter by name,
        (n,) for t and for a parameter that is a number.

        sparse : a scipy.sparse CSR array with the structural pattern, entries that happen to be zero included
        """
        (values,) = self._evaluate("jacobian", self._point(t, y, params), wrt=wrt)
        rows, columns = self._pattern(wrt)
        shape = (self.y_structure.size, self._column_range(wrt)[1])
        if sparse:
            from scipy.sparse import csr_array

            return csr_array((values, (rows, columns)), shape=shape)
        dense = np.zeros(shape, self.dtype)
        dense[rows, columns] = values
        return dense[:, 0] if self._is_number(wrt) else dense

    def _is_number(self, wrt):
        root = self.parameters
        return wrt == "t" or (wrt in root.keys and getattr(root.children[root.keys.index(wrt)], "shape", None) == ())

    def jacobian_sparsity(self, wrt="y"):
        """Where d rhs / d wrt can differ from zero, as a boolean scipy.sparse CSR array."""
        rows, columns = self._pattern(wrt)
        return _boolean(rows, columns, (self.y_structure.size, self._column_range(wrt)[1]))

    def hessian_sparsity(self):
        """Where the Hessian in y of some w . rhs can differ from zero, (n, n), boolean scipy.sparse CSR."""
        if "hessian" not in self._patterns:
            self._patterns["hessian"] = hessian_pattern(self.graph, "y")
        rows, columns = self._patterns["hessian"]
        return _boolean(rows, columns, (self.y_structure.size, self.y_structure.size))

    def taylor(self, t, y, *params, order):
        """Normalised Taylor coefficients y^(k)/k! of the solution through (t, y), k = 0 .. order.

        In the structure of y, each array with a leading axis of length order + 1.
        """
        (rows,) = self._evaluate("taylor", self._point(t, y, params), order=order)
        return self.y_structure.unflatten(rows.reshape(order + 1, -1), lead=(order + 1,))

    def divergence(self, t, y, *params):
        """The trace of d rhs / dy at a point, a float."""
        (value,) = self._evaluate("divergence", self._point(t, y, params))
        return float(value[0])

    def to_sympy(self):
        """The model as SymPy expressions: an object with `t`, `y`, `params`, `rhs`."""
        from odec.interop.sympy import to_sympy

        return to_sympy(self)

    # ---- what users read and keep

    def source(self, kernel="rhs", language="python", layout="auto", cc=(9, 0), **how):
        """The text of a generated kernel: readable Python, optimised LLVM IR, assembly, or PTX for CUDA.

        kernel : one of KERNELS; `how` as it takes: wrt=, order=, method=; or "ensemble", the CUDA kernel of
            odec.solve_ensemble, as "python" or "ptx": method=, batched= the parameters that members differ in, events=;
            or "ensemble_vjp", that of the way back over it: method=, batched=, rows= whether members have rows
        cc : compute capability of the GPU that PTX is for
        """
        if language not in LANGUAGES:
            raise ArgumentError(
                f"source: language {language!r} is not known{nearest(language, LANGUAGES)} It is one of "
                f"{', '.join(LANGUAGES)}."
            )
        if kernel in ("ensemble", "ensemble_vjp"):
            return self._ensemble_source(kernel, language, cc, **how)
        made = self._kernel(kernel, layout, how)
        if language == "python":
            return print_python(made)
        if language == "ptx":
            from odec.codegen.cuda import ptx

            return ptx([print_llvm([made], CUDA)], cc, [kernel])
        text = print_llvm([made], cpu_target())
        return str(optimised(text)) if language == "llvm" else assembly(text)

    def _ensemble_source(self, name, language, cc, method="auto", batched=(), **how):
        from odec.codegen.cuda import ptxas
        from odec.integrate.thread_ir import report

        if language not in ("python", "ptx"):
            raise ArgumentError(
                f"source: the kernel {name!r} has no form in {language!r}; it has 'python', which Numba's CUDA "
                "simulator runs, and 'ptx'."
            )
        names = (batched,) if isinstance(batched, str) else tuple(batched)
        self.by_name(dict.fromkeys(name for name in names if name != "y0"), "batched")
        ranges = [self._column_range(name)[1:] for name in names if name != "y0"]
        columns = tuple(first + i for size, first in ranges for i in range(size))
        make = self._forward_kernel if name == "ensemble" else self._back_kernel
        kernel = make(self._fitting(method), columns, bool(columns), **how)
        if language == "python":
            return kernel.python()
        return f"// {report(kernel, cc)}\n{kernel.ptx(cc)}" if ptxas() else kernel.ptx(cc)

    def _forward_kernel(self, method, columns, own_p, events=()):
        from odec.event import event_kernels, event_list
        from odec.integrate.thread_kernel import thread_kernel

        return thread_kernel(self, method, columns, own_p, event_kernels(self, event_list(events)) if events else None)

    def _back_kernel(self, method, columns, own_p, rows=True):
        from odec.gradients.thread_back import back_kernel

        return back_kernel(self, method, columns, own_p, rows)

    def compile(self, kernel="rhs", target="cpu", layout="auto", **how):
        """The kernel as an object to call on arrays, or in one's own @numba.njit code.

        It takes one contiguous array for each input, then one for each output, which it fills.
        """
        if target not in TARGETS:
            raise ArgumentError(
                f"compile: target {target!r} is not known{nearest(target, TARGETS)} It is one of {', '.join(TARGETS)}."
            )
        if target == "python":
            from odec.codegen.print_python import python_function

            return python_function(self._kernel(kernel, layout, how))
        return self.compiled(kernel, layout=layout, **how)

    def save(self, path):
        """Write the graph and the structures as JSON; `odec.load` reads it and runs no code."""
        import json

        with open(path, "w", encoding="utf-8") as file:
            json.dump(self._document(), file)

    # ---- kernels

    def solver(self, method="auto") -> Solver:
        """What runs the loop of a method for this system, compiled."""
        found = self._solvers.get(method)
        if found is None:
            record = self._fitting(method)
            sizes = self.y_structure.size, self.p_structure.size

            def make(kernel, lanes, shared, keeps, tapes):
                if tapes:
                    return self.compiled_taped(record)[0]
                how = {"commits": lanes > 1, "keeps": keeps} if kernel == "advance" else {}
                return self.compiled(kernel, lanes=lanes, shared=shared, method=record, **how)

            lanes = best_lanes(self.dtype) if _suits_lanes(self.graph, record) else 1
            found = self._solvers[method] = Solver(self.compiled("rhs"), make, record, sizes, self.dtype, lanes)
        return found

    def _fitting(self, method):
        """The record of a method that suits the model; ArgumentError for one that does not."""
        record = method_named(method)
        check_fits(record, self)
        return record

    def compiled(self, kernel, layout="auto", lanes=1, shared=(), **how) -> CompiledKernel:
        """The compiled kernel, from memory, the disk cache, or the compiler.

        lanes, shared : trajectories side by side, and the names of the arguments in which they do not differ
        """
        key = (kernel, layout, *sorted(how.items()))
        found = self._programs.get((key, lanes, shared))
        if found is None:
            self._check_kernel(kernel, layout)
            stamp, make = f"{self.graph.digest} {_stamped(key)}", lambda: [self._kernel(kernel, layout, how)]
            found = self._programs[key, lanes, shared] = program(stamp, make, lanes, shared)
        return found.kernels[kernel]

    def compiled_together(self, *asked):
        """The compiled kernels of pairs (kernel, options): one program, in which what they call is there once."""
        key = ("together", *((kernel, *sorted(how.items())) for kernel, how in asked))
        found = self._programs.get(key)
        if found is None:
            for kernel, _ in asked:
                self._check_kernel(kernel, "auto")
            stamp = f"{self.graph.digest} {[_stamped(pair) for pair in key[1:]]}"
            found = self._programs[key] = program(stamp, lambda: self._together(asked))
        return [found.kernels[f"{kernel}_{number}"] for number, (kernel, _) in enumerate(asked)]

    def _together(self, asked):
        return [lower(self._derived(kernel, how), f"{kernel}_{n}", "auto") for n, (kernel, how) in enumerate(asked)]

    def compiled_taped(self, record):
        """(the kernel "advance" that keeps Residuals, "first_residuals") of a method."""
        how = {"method": record, "commits": False, "keeps": True, "tapes": True}
        return self.compiled_together(("advance", how), ("first_residuals", {"method": record}))

    def compiled_functions(self, functions):
        """Functions of (t, y, p) beside the model's own, by name, compiled together: {name: CompiledKernel}."""
        stamp = f"{self.graph.digest} {[(name, f.digest) for name, f in functions.items()]}"
        return program(stamp, lambda: [lower(f, name, "auto") for name, f in functions.items()]).kernels

    def _check_kernel(self, kernel, layout):
        if not isinstance(kernel, str) or kernel not in KERNELS:
            raise ArgumentError(
                f"kernel {kernel!r} is not known{nearest(kernel, KERNELS)} It is one of {', '.join(KERNELS)}."
            )
        if layout not in LAYOUTS:
            raise ArgumentError(
                f"layout {layout!r} is not known{nearest(layout, LAYOUTS)} It is one of {', '.join(LAYOUTS)}."
            )

    def _kernel(self, kernel, layout, how):
        """One named Kernel, which holds those that it calls."""
        self._check_kernel(kernel, layout)
        return lower(self._derived(kernel, how), kernel, layout)

    def derivative(self, kernel, **how) -> Function:
        """The graph of a kernel: what `compile` and `source` start from."""
        self._check_kernel(kernel, "auto")
        return self._derived(kernel, how)

    def _derived(self, kernel, how):
        known = tuple(inspect.signature(KERNELS[kernel]).parameters)[1:]
        for name in how:
            if name not in known:
                raise ArgumentError(
                    f"kernel {kernel!r} has no option {name!r}{nearest(name, known)} It takes "
                    f"{', '.join(known) or 'none'}."
                )
        return KERNELS[kernel](self, **how)

    def _evaluate(self, kernel, inputs, **how):
        compiled = self.compiled(kernel, **how)
        outputs = [np.empty(a.size, a.dtype) for a in compiled.arguments if a.written]
        compiled.run(*inputs, *outputs)
        return outputs

    # ---- points

    def _point(self, t, y, params):
        return [
            _scalar(t, f"{self.name}: t"),
            self.y_structure.flatten(y, f"{self.name}: y", self.dtype),
            self.flat_parameters(params),
        ]

    def flat_parameters(self, params):
        """The parameters as one flat vector (m,): a tuple in signature order, or a dict by name."""
        root = self.parameters
        params = self.by_name(params, "params")
        missing = [name for name in root.keys if name not in params]
        if missing:
            raise ArgumentError(
                f"{self.name} needs the parameter {missing[0]!r}; a system has no defaults, so give it in params."
            )
        return self.p_structure.flatten(params, f"{self.name}: params", self.dtype)

    def by_name(self, params, what):
        """Parameters (or their tangents) by name, from a tuple in signature order or a dict."""
        names = self.parameters.keys
        listed = ", ".join(map(str, names)) or "none"
        if isinstance(params, dict):
            for name in params:
                if name not in names:
                    raise ArgumentError(f"{self.name} has no parameter {name!r}{nearest(name, names)} It has {listed}.")
            return params
        if not isinstance(params, (tuple, list)):
            raise ArgumentError(
                f"{self.name}: {what} is {reprlib.repr(params)}; pass a tuple in signature order, or a dict by name."
            )
        if len(params) != len(names):
            raise ArgumentError(
                f"{self.name} takes {counted(len(names), 'parameter')} ({listed}), but {len(params)} were given; "
                "give one value for each."
            )
        return dict(zip(names, params, strict=True))

    def _parameter_tangent(self, dparams):
        root = self.parameters
        flat = np.zeros(self.p_structure.size, self.dtype)
        given = self.by_name(dparams, "dparams")
        for key, child in zip(root.keys, root.children, strict=True):
            if given.get(key) is not None:
                Structure(child, self.p_structure.size).flatten(given[key], f"{self.name}: tangent of {key}", out=flat)
        return flat

    def _as_parameters(self, flat):
        """A flat parameter vector as a tuple in signature order."""
        return tuple(self.p_structure.unflatten(flat).values())

    def _column_range(self, wrt):
        """(input, size, offset) of what a Jacobian is taken by."""
        if wrt == "t":
            return "t", 1, 0
        if wrt == "y":
            return "y", self.y_structure.size, 0
        root = self.parameters
        if wrt not in root.keys:
            known = ("y", "t", *root.keys)
            raise ArgumentError(
                f"{self.name}.jacobian: wrt {wrt!r} is not an input{nearest(wrt, known)} It is one of "
                f"{', '.join(map(str, known))}."
            )
        leaves = _leaves(root.children[root.keys.index(wrt)])
        offset = leaves[0].offset if leaves else 0
        return "p", sum(leaf.size for leaf in leaves), offset

    def _pattern(self, wrt):
        """(rows, columns) of the Jacobian's structural nonzeros, columns counted within `wrt`."""
        if wrt not in self._patterns:
            name, size, offset = self._column_range(wrt)
            rows, columns = jacobian_pattern(self.graph, name)
            inside = (columns >= offset) & (columns < offset + size)
            self._patterns[wrt] = rows[inside], columns[inside] - offset
        return self._patterns[wrt]

    def _jacobian_function(self, wrt="y"):
        name, _, offset = self._column_range(wrt)
        rows, columns = self._pattern(wrt)
        return jacobian_values(self.graph, name, (rows, columns + offset))


_DERIVED = ("_programs", "_patterns", "_solvers", "event_kernels")  # found again when needed, never pickled


def _suits_lanes(graph, record):
    """Whether trajectories fill vectors side by side; loops over arrays, and over orders, fill them alone."""
    if not is_small(graph):
        return False
    if not isinstance(record, TaylorMethod):
        return True
    return not record.adapts_order and operation_count(taylor(graph, record.known_order)) <= INLINE


def _step_function(system, method="auto"):
    return step_function(system.graph, system._fitting(method))


def _advance_function(system, method="auto", commits=True, keeps=True, tapes=False):
    return advance_function(system.graph, system._fitting(method), commits, keeps, tapes)


def _dense_function(system, method="auto"):
    return dense_function(system.graph, system._fitting(method))


def _step_vjp_function(system, method="auto", rows=False, timed=False, terms=(), over=None):
    return step_vjp(system.graph, system._fitting(method), rows, timed, terms, over)


def _kept_vjp_function(system, method="auto", timed=False, terms=(), over=None):
    return kept_vjp(system.graph, system._fitting(method), timed, terms, over)


def _step_terms_function(system, method="auto", terms=(), over=None):
    return step_terms(system.graph, system._fitting(method), terms, over)


def _kept_terms_function(system, method="auto", terms=(), over=None):
    return kept_terms(system.graph, system._fitting(method), terms, over)


def _first_residuals_function(system, method="auto"):
    return first_residuals(system.graph, system._fitting(method))


def _lane_vjp_function(system, method="auto", rows=False, timed=False):
    return lane_vjp(_step_vjp_function(system, method, rows, timed))


def _step_jvp_function(system, method="auto", rows=False):
    return step_jvp(system.graph, system._fitting(method), rows)


def _advance_vjp_function(system, method="auto", rows=False, terms=(), over=None):
    return advance_vjp(system.graph, system._fitting(method), rows, terms, over)


def _first_size_vjp_function(system, method="auto"):
    return first_size_vjp(system.graph, system._fitting(method))


def _jvp_function(system, wrt=("t", "y", "p")):
    known = tuple(system.graph.inputs)
    for name in wrt:
        if name not in known:
            raise ArgumentError(
                f"{system.name}: wrt has {name!r}{nearest(name, known)} It holds some of {', '.join(known)}."
            )
    return jvp(system.graph, tuple(wrt))


def _taylor_function(system, order=4):
    if not isinstance(order, (int, np.integer)) or isinstance(order, bool) or order < 0:
        raise ArgumentError(f"{system.name}: order is {order!r}; a non-negative integer is needed.")
    return taylor(system.graph, int(order))


KERNELS = {
    "rhs": lambda system: system.graph,
    "jvp": _jvp_function,
    "vjp": lambda system: vjp(system.graph),
    "jacobian": System._jacobian_function,
    "taylor": _taylor_function,
    "divergence": lambda system: divergence(system.graph),
    "step": _step_function,
    "advance": _advance_function,
    "dense": _dense_function,
    "step_vjp": _step_vjp_function,
    "kept_vjp": _kept_vjp_function,
    "step_terms": _step_terms_function,
    "kept_terms": _kept_terms_function,
    "first_residuals": _first_residuals_function,
    "lane_vjp": _lane_vjp_function,
    "step_jvp": _step_jvp_function,
    "advance_vjp": _advance_vjp_function,
    "size_vjp": lambda system: size_vjp(),
    "first_size_vjp": _first_size_vjp_function,
}


def _stamped(key):
    """The text of a kernel's key; a method's is the hash of its coefficients."""
    return repr([(e[0], e[1].digest) if isinstance(e, tuple) and hasattr(e[1], "digest") else e for e in key])


def _leaves(item):
    if isinstance(item, Leaf):
        return [item]
    assert isinstance(item, Branch)
    return [leaf for child in item.children for leaf in _leaves(child)]


def _scalar(value, what):
    try:
        return np.array([float(value)])
    except (TypeError, ValueError):
        raise ArgumentError(f"{what} is {value!r}; a real number is needed.") from None


def _boolean(rows, columns, shape):
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(rows), bool), (rows, columns)), shape=shape)
