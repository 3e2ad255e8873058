"""odec: a compiler for ordinary differential equations. Names are imported when first used."""

from __future__ import annotations

import sys

_HOMES = {
    "dynamics": "odec.dynamics", "Model": "odec.dynamics", "System": "odec.system", "load": "odec.system",
    "solve": "odec.solve", "methods": "odec.solve", "Solution": "odec.solution",
    "ButcherTableau": "odec.steppers.tableaus", "supported": "odec.ops.catalogue", "from_sympy": "odec.interop.sympy",
    "Status": "odec.errors", "OdecError": "odec.errors", "TraceError": "odec.errors", "ShapeError": "odec.errors",
    "MissingRuleError": "odec.errors", "ArgumentError": "odec.errors", "SolveError": "odec.errors",
    "LoadError": "odec.errors", "CompileError": "odec.errors", "special": None, "testing": None,
}  # fmt: skip
__all__ = list(_HOMES)
__version__ = "0.1.0"


def __getattr__(name):
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'odec' has no attribute {name!r}")
    home = _HOMES[name]
    value = importlib.import_module(f"odec.{name}") if home is None else getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*__all__, "__version__"])


class _Package(type(sys)):
    """This module: importing the submodule odec.solve leaves the name odec.solve to the function."""

    def __setattr__(self, name, value):
        if not (isinstance(value, type(sys)) and _HOMES.get(name)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
