"""Write docs/reference.md from the docstrings, the op table and the list of traceable functions."""

import inspect
from pathlib import Path

import odec
from odec.graph.op import OPS
from odec.ops.catalogue import supported
from odec.system import System

HERE = Path(__file__).parent
SYSTEM = ("rhs", "jvp", "vjp", "jacobian", "jacobian_sparsity", "hessian_sparsity", "taylor", "divergence", "to_sympy",
          "source", "compile", "save")  # fmt: skip

TERMS = ("regularizers",)  # modules whose classes are what users make


def entry(name, value):
    """A heading with the signature, and the docstring as it is."""
    return [f"### `{name}{signature(value)}`", "", inspect.getdoc(value) or "", ""]


def signature(value):
    """The parameters of a callable with their defaults, without types."""
    found = inspect.signature(value)
    plain = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name != "self"]
    return str(found.replace(parameters=plain, return_annotation=found.empty))


def public():
    lines = []
    for name in sorted(odec.__all__):
        value = getattr(odec, name)
        if inspect.ismodule(value):
            lines += [f"### `odec.{name}`", "", inspect.getdoc(value) or "", ""]
            for inner, member in sorted(vars(value).items()):
                own = inspect.isfunction(member) and member.__module__.startswith(value.__name__) and inner[0] != "_"
                if own or (name in TERMS and inner in value.__all__):
                    lines += entry(f"odec.{name}.{inner}", member)
        elif isinstance(value, type) and issubclass(value, (Exception, int)):
            lines += [f"### `odec.{name}`", "", inspect.getdoc(value) or "", ""]
        else:
            lines += entry(f"odec.{name}", value)
    return lines


def reference():
    """The text of reference.md."""
    lines = [
        "# Reference",
        "",
        "Made by `python docs/make_reference.py` from the docstrings.",
        "",
        "## Names of `odec`",
        "",
    ]
    lines += public()
    lines += ["## A model with shapes: `odec.System`", ""]
    for name in SYSTEM:
        lines += entry(f"system.{name}", getattr(System, name))
    lines += ["## Functions that can be traced", "", ", ".join(f"`{n}`" for n in supported()), ""]
    lines += ["## Ops", "", "| op | family | value | SymPy |", "|---|---|---|---|"]
    for name, op in sorted(OPS.items()):
        sympy = "yes" if callable(op.sympy) else op.sympy
        lines.append(f"| `{name}` | {op.family} | {op.doc.replace('|', chr(92) + '|')} | {sympy} |")
    return "\n".join(line.rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    (HERE / "reference.md").write_text(reference(), encoding="utf-8")
