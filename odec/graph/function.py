"""A graph with named inputs and outputs: models, derivatives and steps are all this."""

from __future__ import annotations

import hashlib

import numpy as np

from odec.graph.node import CONSTANT, INPUT, Data, current_line, make, set_line, topological, value_of


class Function:
    """Named outputs as expressions of named inputs.

    inputs : dict name -> input Node
    outputs : dict name -> Node
    """

    def __init__(self, name, inputs, outputs):
        self.name = name
        self.inputs = dict(inputs)
        self.outputs = dict(outputs)
        self._order = None
        self._digest = None

    @property
    def kinds(self):
        """(shape, dtype) of the outputs, by name."""
        return {name: (node.shape, node.dtype) for name, node in self.outputs.items()}

    @property
    def result(self):
        """(shape, dtype) of the only output."""
        (kind,) = self.kinds.values()
        return kind

    @property
    def nodes(self):
        """Every node, inputs first, then in an order in which each follows what it needs."""
        if self._order is None:
            known = {id(n) for n in self.inputs.values()}
            rest = [n for n in topological(self.outputs.values()) if id(n) not in known]
            for node in rest:
                if node.op is INPUT:
                    raise ValueError(f"{self.name} depends on the foreign input {node.params['name']!r}")
            self._order = [*self.inputs.values(), *rest]
        return self._order

    def __call__(self, *args):
        """The outputs as nodes, with `args` (nodes) in place of the inputs: inlining."""
        return self.substitute(dict(zip(self.inputs.values(), args, strict=True)))

    def substitute(self, replacement):
        """Outputs by name, with the input nodes in `replacement` (input -> node) replaced."""
        before, new = current_line(), {}
        for node in self.nodes:
            if node.op is INPUT:
                new[id(node)] = replacement.get(node, node)
            elif node.op is CONSTANT:
                new[id(node)] = node
            else:
                set_line(node.line)
                copy = make(node.op, [new[id(i)] for i in node.inputs], **node.params)
                if copy.name is None:
                    copy.name = node.name
                new[id(node)] = copy
        set_line(before)
        return {name: new[id(node)] for name, node in self.outputs.items()}

    def evaluate(self, *arrays):
        """Outputs by name as ndarrays, by NumPy: the reference of every other evaluation."""
        values = self.values(*arrays)
        return {name: values[id(node)] for name, node in self.outputs.items()}

    def values(self, *arrays):
        """{id(node): its ndarray} of every node, by NumPy."""
        values = {}
        for (name, node), array in zip(self.inputs.items(), arrays, strict=True):
            array = np.asarray(array, node.dtype)
            if array.shape != node.shape:
                raise ValueError(f"{self.name}: input {name} has shape {array.shape}, needs {node.shape}")
            values[id(node)] = array
        with np.errstate(all="ignore"):
            for node in self.nodes[len(self.inputs) :]:
                if node.op is CONSTANT:
                    values[id(node)] = value_of(node)
                else:
                    result = node.op.evaluate(*(values[id(i)] for i in node.inputs), **node.params)
                    values[id(node)] = np.asarray(result, node.dtype)
        return values

    def first_non_finite(self, *arrays, outputs=None):
        """Where the first output element that is not finite comes from, by NumPy: an Origin, or None.

        outputs : names of outputs to look at, in this order; None is all of them
        """
        from odec.graph.origin import first_non_finite

        return first_non_finite(self, arrays, outputs)

    @property
    def digest(self):
        """A hash of the graph: equal for equal graphs, in every process."""
        if self._digest is None:
            number = {id(n): k for k, n in enumerate(self.nodes)}
            text = hashlib.sha256()
            for node in self.nodes:
                inputs = [number[id(i)] for i in node.inputs]
                text.update(repr((node.op.name, inputs, node.shape, node.dtype)).encode())
                for key, value in node.params.items():
                    text.update(key.encode() + _stable(value))
            outputs = [(name, number[id(node)]) for name, node in self.outputs.items()]
            text.update(repr((list(self.inputs), outputs)).encode())
            self._digest = text.hexdigest()
        return self._digest

    @property
    def stamp(self):
        """What tells Functions apart in names of kernels, equal in every process."""
        return self.digest

    def __str__(self):
        from odec.graph.show import listing

        return listing(self)

    def draw(self):
        """The graph as SVG text that a notebook shows as a picture."""
        from odec.graph.draw import draw

        return draw(self)

    def __repr__(self):
        def port(name, node):
            return f"{name}: {node.dtype}{list(node.shape)}"

        inputs = ", ".join(port(*i) for i in self.inputs.items())
        outputs = ", ".join(port(*o) for o in self.outputs.items())
        return f"<Function {self.name}({inputs}) -> {outputs}>"


def _stable(value):
    if isinstance(value, Data):
        return repr((value.array.shape, value.array.dtype.str)).encode() + value.array.tobytes()
    if isinstance(value, Function):
        return value.digest.encode()
    return value.hex().encode() if isinstance(value, float) else repr(value).encode()
