"""Kernels as PTX: every one is accepted by NVIDIA's assembler; nothing here needs a GPU."""

import functools
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import odec
from odec.codegen import cuda
from odec.codegen.cuda import CAPABILITIES, ptx, resources
from odec.errors import ArgumentError, CompileError
from odec.integrate.thread_kernel import thread_kernel
from odec.steppers.methods import method_named

PROBLEMS = Path(__file__).parents[1] / "problems"
TARGETS = ((8, 0), (9, 0))


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


@odec.dynamics
def everything(t, y, a):
    s = np.sin(y) * np.exp(-(y**2)) + np.power(np.abs(y) + 1, 1.5) + np.mod(t, 3.0) + np.arctan2(y, 2.0)
    return np.linalg.solve(a + np.outer(y, y), s) * np.linalg.det(a) + np.where(y > 0, np.maximum(y, 1.0), np.tanh(y))


@odec.dynamics
def network(t, z, w1, b1, w2):
    return np.tanh(z @ w1 + b1) @ w2


def systems(dtype):
    return {
        "lorenz": lorenz.bind(np.ones(3), dtype=dtype),
        "everything": everything.bind(np.ones(4), (np.eye(4),), dtype=dtype),
        "network": network.bind(np.ones((8, 3)), (np.ones((3, 5)), np.ones(5), np.ones((5, 3))), dtype=dtype),
    }


KERNELS = {
    "rhs": {}, "jvp": {}, "vjp": {}, "jacobian": {}, "divergence": {}, "taylor": {"order": 3},
    "step": {"method": "tsit5"}, "dense": {"method": "tsit5"},
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("model", ["lorenz", "everything", "network"])
def test_every_kernel_is_accepted_by_the_assembler(model, dtype):
    system = systems(dtype)[model]
    for kernel, how in KERNELS.items():
        if model == "network" and kernel in ("jacobian", "taylor"):
            continue  # long, and made of what the other two hold
        for cc in TARGETS:
            text = system.source(kernel, "ptx", cc=cc, **how)
            assert f".target sm_{cc[0]}{cc[1]}" in text
            assert 0 < resources(text, cc)[kernel].registers <= 255


def test_a_step_in_single_precision_computes_in_double_only_what_depends_on_time():
    text = lorenz.bind(np.ones(3), dtype="float32").source("step", "ptx", method="tsit5")
    assert set(re.findall(r"^\s+([a-z][\w.]*)\.f64", text, re.MULTILINE)) <= {"cvt.rn.f32", "cvt", "mul"}
    assert "fma.rn.f32" in text


def test_what_a_thread_takes_is_told():
    found = resources(lorenz.bind(np.ones(3)).source("step", "ptx", method="dopri5"), (9, 0))["step"]
    assert 40 < found.registers < 128
    assert (found.stack_bytes, found.spill_store_bytes, found.spill_load_bytes) == (0, 0, 0)


@pytest.mark.parametrize("cc", [(3, 5), "sm_90", 90, None])
def test_a_capability_that_is_none_is_refused(cc):
    with pytest.raises(ArgumentError, match=r"compute capability is needed, one of .*\(9, 0\)"):
        lorenz.bind(np.ones(3)).source("rhs", "ptx", cc=cc)


def test_every_capability_has_a_form():
    for cc in CAPABILITIES:
        assert f".target sm_{cc[0]}{cc[1]}" in lorenz.bind(np.ones(3)).source("rhs", "ptx", cc=cc)


def test_functions_that_cuda_lacks_are_named():
    text = "declare double @mystery(double)\ndefine void @k(ptr %p) {\n %x = load double, ptr %p\n" \
           " %y = call double @mystery(double %x)\n store double %y, ptr %p\n ret void\n}\n"  # fmt: skip
    with pytest.raises(CompileError, match="k: mystery has no form for CUDA"):
        ptx([text], (9, 0), ["k"])


def test_functions_can_stay_apart():
    text = "define void @f(ptr %p) {\n store double 1.0, ptr %p\n ret void\n}\n" \
           "define void @k(ptr %p) {\n call void @f(ptr %p)\n ret void\n}\n"  # fmt: skip
    one, two = (ptx([text], (9, 0), ["k"], inline=True, apart=apart) for apart in ((), ("f",)))
    assert "call" not in one and re.search(r"\.func f\(", two) and "call.uni" in two


def test_text_that_the_assembler_refuses_is_an_error():
    with pytest.raises(CompileError, match="ptxas refused generated PTX for sm_90"):
        resources(".version 7.8\n.target sm_90\n.address_size 64\nnonsense\n", (9, 0))


def test_without_nvidias_wheels_a_sentence_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda, "_roots", lambda: [tmp_path])
    monkeypatch.setenv("ODEC_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    text = lorenz.bind(np.ones(3)).source("rhs", "ptx")  # no mathematical function, so no library is needed
    with pytest.raises(CompileError, match=r'ptxas, which is not here; install "odec\[cuda\]"'):
        resources(text, (9, 0))
    with pytest.raises(CompileError, match=r'libdevice.10.bc, which is not here; install "odec\[cuda\]"'):
        everything.bind(np.ones(4), (np.eye(4),)).source("rhs", "ptx")


def test_the_toolkit_of_the_environment_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ptxas").touch()
    assert cuda.ptxas() == tmp_path / "bin" / "ptxas"


@odec.dynamics
def oscillator(t, y):
    q, v = y
    return (v, -np.sin(q))


@pytest.mark.parametrize("name", [m.name for m in odec.methods()])
def test_the_whole_solve_of_every_method_is_accepted_by_the_assembler(name):
    cc = TARGETS[len(name) % 2]
    of = oscillator.bind((1.0, 1.0)) if "symplectic" in method_named(name).family else lorenz.bind(np.ones(3))
    assert resources(of.source("ensemble", "ptx", cc=cc, method=name), cc)["ensemble"].registers <= 255


@pytest.mark.parametrize(("cc", "rows"), [((8, 0), True), ((9, 0), False)])
def test_the_way_back_is_accepted_by_the_assembler_and_spills_no_registers(cc, rows):
    system, method = lorenz.bind(np.ones(3)), method_named("tsit5")
    text = system.source("ensemble_vjp", "ptx", cc=cc, method="tsit5", batched="rho", rows=rows)
    records = thread_kernel(system, method, (1,), own_p=True, records=True)
    for found in (resources(text, cc)["ensemble_vjp"], records.resources(cc)):
        assert found.registers <= 255 and found.spill_store_bytes == 0


KINDS = ("lorenz", "hodgkin_huxley", "arenstorf", "mlp_tanh")
SPILLED = {("mlp_tanh", (9, 0)): 24}  # ptxas loads many of its 131 weights ahead, for sm_90 only


def problems_up_to_8_states():
    """One problem of each right-hand side, so that nothing is compiled twice."""
    records = json.loads((PROBLEMS / "nonstiff.json").read_text())["problems"]
    records += json.loads((PROBLEMS / "stiff.json").read_text())["problems"]
    found = {r["rhs"]: r for r in records if len(r["y0"]) <= 8}
    return {r["name"]: r for r in found.values()}


def methods_and_targets(name):
    """Both methods for both targets where a right-hand side is of a kind of its own: a polynomial, exponentials, roots,
    131 weights. Of the others each has one pair, in turn, for all that differs is how much of the same is computed.
    """
    pairs = [(method, cc) for method in ("tsit5", "dopri5") for cc in TARGETS]
    alike = [n for n in problems_up_to_8_states() if n not in KINDS]
    return pairs if name in KINDS else [pairs[alike.index(name) % len(pairs)]]


@pytest.mark.parametrize("name", problems_up_to_8_states())
def test_solves_of_up_to_8_states_spill_no_registers(name, monkeypatch):
    monkeypatch.syspath_prepend(PROBLEMS)
    rhs_of = importlib.import_module("problems").rhs_of
    record = problems_up_to_8_states()[name]
    model, params = rhs_of(record), np.array(list(record["params"].values()))
    traced = odec.dynamics((lambda t, y, p: model(t, y, p)) if params.size else (lambda t, y: model(t, y, ())))
    system = traced.bind(np.array(record["y0"]), (params,) if params.size else ())
    text_of = functools.cache(lambda method: system.source("ensemble", "ptx", cc=(8, 0), method=method))
    for method, cc in methods_and_targets(name):
        found = resources(text_of(method), cc)["ensemble"]
        assert found.spill_store_bytes <= SPILLED.get((name, cc), 0), (method, cc, found)


def test_single_precision_keeps_double_to_time_and_step_size():
    counts = []
    for dtype in ("float64", "float32"):
        text = lorenz.bind(np.ones(3), dtype=dtype).source("ensemble", "ptx", method="tsit5")
        counts.append([len(re.findall(rf"(?:fma|mul|add|sub)\S*\.{kind}\s", text)) for kind in ("f64", "f32")])
    (double, none), (control, single) = counts
    assert none == 0 and control < double / 2 and single > 100


def test_the_ensemble_has_readable_python():
    text = lorenz.bind(np.ones(3)).source("ensemble", method="tsit5", batched="rho")
    for part in ("def advance(", "def integrate(", "@cuda.jit\ndef ensemble(", "COLUMNS = np.array([1], np.int64)"):
        assert part in text
    text = lorenz.bind(np.ones(3)).source("ensemble_vjp", method="tsit5", batched="rho")
    for part in ("def within(", "def pull_rounds(", "@cuda.jit\ndef ensemble_vjp("):
        assert part in text


def test_what_the_ensemble_has_not_is_refused():
    system = lorenz.bind(np.ones(3))
    with pytest.raises(ArgumentError, match="the kernel 'ensemble' has no form in 'asm'"):
        system.source("ensemble", "asm")
    with pytest.raises(ArgumentError, match="the kernel 'ensemble_vjp' has no form in 'llvm'"):
        system.source("ensemble_vjp", "llvm")
    with pytest.raises(ArgumentError, match="lorenz has no parameter 'rhoo'; did you mean 'rho'"):
        system.source("ensemble", "ptx", batched="rhoo")


def test_the_text_of_an_ensemble_says_what_a_thread_takes():
    first, *_ = lorenz.bind(np.ones(3)).source("ensemble", "ptx", method="tsit5").splitlines()
    found = re.fullmatch(r"// lorenz by tsit5: one member a thread, sm_90: (\d+) registers, (\d+) bytes of local "
                         r"memory, 0 bytes spilled; (\d+) threads at most on a processor", first)  # fmt: skip
    assert found
    registers, local, threads = map(int, found.groups())
    assert registers < 160 and local < 1200 and 384 <= threads <= 512
