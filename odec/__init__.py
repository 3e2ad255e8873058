"""odec: a compiler for ordinary differential equations. Names are imported when first used."""

from __future__ import annotations

_HOMES = {  # name -> the module that holds it; with a colon behind it, the module itself
    "dynamics": "odec.model", "Model": "odec.model", "System": "odec.system", "load": "odec.system",
    "solve": "odec.solving", "Solution": "odec.solution", "solve_ensemble": "odec.ensemble",
    "EnsembleSolution": "odec.ensemble_solution", "Event": "odec.event", "solve_ivp": "odec.interop.scipy",
    "solve_vjp": "odec.gradient", "Gradient": "odec.gradient",
    "sensitivities": "odec.sensitivity", "solve_jvp": "odec.sensitivity",
    "SensitivitySolution": "odec.sensitivity_solution", "EnsembleSensitivities": "odec.sensitivity_solution",
    "hessian_vector_product": "odec.second_order", "steady_state": "odec.steady", "steady_state_vjp": "odec.steady",
    "steady_state_jvp": "odec.steady", "SteadyState": "odec.steady",
    "taylor_map": "odec.polynomial_map", "TaylorMap": "odec.polynomial_map",
    "regularize": "odec.augmented", "cnf": "odec.augmented", "nn": "odec.nn:",
    "regularizers": "odec.regularizers:",
    "jax": "odec.interop.jax:",
    "methods": "odec.steppers.methods", "add_method": "odec.steppers.methods",
    "ButcherTableau": "odec.steppers.tableaus", "LowStorageTableau": "odec.steppers.low_storage",
    "SymplecticTableau": "odec.steppers.symplectic", "TaylorMethod": "odec.steppers.taylor",
    "Controller": "odec.integrate.control",
    "supported": "odec.ops.catalogue", "from_sympy": "odec.interop.sympy",
    "Status": "odec.errors", "OdecError": "odec.errors", "TraceError": "odec.errors", "ShapeError": "odec.errors",
    "MissingRuleError": "odec.errors", "ArgumentError": "odec.errors", "SolveError": "odec.errors",
    "LoadError": "odec.errors", "CompileError": "odec.errors", "special": "odec.special:", "testing": "odec.testing:",
    "torch": "odec.interop.torch:",
}  # fmt: skip
__all__ = list(_HOMES)
__version__ = "0.1.0"


def __getattr__(name):
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'odec' has no attribute {name!r}")
    home = _HOMES[name]
    module = importlib.import_module(home.removesuffix(":"))
    value = module if home.endswith(":") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*__all__, "__version__"])
