"""The house: who may import whom, names that say nothing, what stands at the root, what starts fast."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import odec

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "odec"
# A file imports only from floors below its own; inside one floor the order of the list holds.
FLOORS = (
    ("errors", "graph"),
    ("ops", "special", "nn", "transforms"),
    ("steppers", "codegen"),
    ("integrate",),
    ("gradients", "neural"),
    (
        "system",
        "tracing",
        "model",
        "regularizers",
        "augmented",
        "event",
        "event_sensitivity",
        "solution",
        "progress",
        "failure",
        "solving",
        "direction",
        "variation",
        "second_order",
        "gradient",
        "steady",
        "ensemble_solution",
        "ensemble_inputs",
        "chunks",
        "job",
        "distributed",
        "ensemble",
        "sensitivity_solution",
        "ensemble_gradient",
        "ensemble_sensitivity",
        "sensitivity",
        "polynomial_map",
        "testing",
    ),
    ("interop",),
    ("cli", "__main__"),
)
NEIGHBOURS = {("steppers", "codegen"), ("codegen", "steppers")}  # never see each other
# Reached when a user asks for them, inside a function: optional packages and the front's own files.
LAZY = {
    ("model", "interop"), ("system", "interop"), ("system", "graph"), ("testing", "interop"),
    ("solution", "interop"), ("ensemble_solution", "interop"), ("distributed", "interop"),
}  # fmt: skip
BANNED = ("utils", "misc", "helpers", "common", "core", "base", "manager", "handler", "factory", "data", "info")
ALLOWED_AT_ROOT = {"pyproject.toml", "README.md", "LICENSE", ".gitignore", ".ci", "odec", "tests", "examples", "docs"}
FILES = sorted(PACKAGE.rglob("*.py"))


def floor_of(room):
    return next(k for k, floor in enumerate(FLOORS) if room in floor)


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """(module, whether it stands at the top) of every import of odec in a file."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "odec":
            names = [node.module] if node.module != "odec" else [f"odec.{a.name}" for a in node.names]
            for name in names:
                yield name, id(node) in top
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "odec":
                    yield alias.name, id(node) in top


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "__init__.py" or p.parent != PACKAGE], ids=str)
def test_no_file_imports_from_a_floor_above(path):
    room = room_of(path)
    for module, at_top in imports(path):
        parts = module.split(".")
        other = parts[1] if len(parts) > 1 else room
        if other == room or other == "__version__":
            continue
        if not at_top and (room, other) in LAZY:
            continue
        assert (room, other) not in NEIGHBOURS, f"{room} and {other} are neighbours that never see each other"
        assert floor_of(other) <= floor_of(room), f"{path.name} imports {module} from a floor above"


def test_rooms_of_a_floor_are_listed():
    rooms = {room_of(p) for p in FILES} - {"__init__"}
    assert rooms == {room for floor in FLOORS for room in floor}


def test_names_say_something():
    for path in FILES:
        words = re.split(r"[_.]", path.stem)
        assert not set(words) & set(BANNED), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                name = node.name.lower().strip("_")
                assert not set(name.split("_")) & {"utils", "misc", "helper", "helpers", "manager", "handler"}, (
                    node.name
                )
                assert not name.startswith(("do_", "process_")), node.name


def test_every_public_function_and_class_has_a_docstring():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def public_functions():
    """(name, function) of every function and method that a user can reach from odec.__all__."""
    for name in odec.__all__:
        value = getattr(odec, name)
        if not (inspect.ismodule(value) or inspect.isclass(value)):
            yield name, value
            continue
        for inner, member in vars(value).items():
            function = member.fget if isinstance(member, property) else member
            function = getattr(function, "func", function)  # of a cached property
            if inspect.isfunction(function) and not inner.startswith("_") and function.__module__.startswith("odec"):
                yield f"{name}.{inner}", function


@pytest.mark.parametrize(
    ("name", "function"), list(public_functions()), ids=lambda part: part if type(part) is str else ""
)
def test_every_function_a_user_can_call_has_a_docstring(name, function):
    assert inspect.getdoc(function), f"odec.{name} has no docstring"


def test_nothing_else_stands_at_the_root():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: untracked files cannot be told from the project's")
    assert {line.split("/")[0] for line in listed.stdout.splitlines()} <= ALLOWED_AT_ROOT


def test_public_names_are_there():
    for name in odec.__all__:
        assert getattr(odec, name) is not None


def loaded_modules(code):
    script = f"{code}\nimport sys\nprint(*sorted(m.split('.')[0] for m in sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return set(out.stdout.split())


def test_import_loads_nothing_heavy():
    heavy = {"numba", "scipy", "sympy", "llvmlite", "matplotlib", "hypothesis", "numpy"}
    assert not loaded_modules("import odec") & heavy


SOLVE = """
import odec
@odec.dynamics
def decay(t, y, rate=2.0):
    return [-rate * y[0]]
odec.solve(decay, (0.0, 1.0), [1.0])
"""


def test_a_cached_solve_does_not_import_numba():
    loaded_modules(SOLVE)
    again = loaded_modules(SOLVE)
    assert "llvmlite" in again
    assert not again & {"numba", "scipy", "sympy", "matplotlib"}
