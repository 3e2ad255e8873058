"""The CUDA kernel's own LLVM IR, compiled for this CPU, against the CPU's ensembles; and the traffic around it."""

import numpy as np
import pytest
from cases import CASES, FLOOR, LONGER, assert_same, ball, lorenz, on_gpu, record, solved, tolerance_of
from host import HostDevice

import odec
from odec.errors import ArgumentError
from odec.integrate import ensemble_cuda


@pytest.mark.parametrize("name", [*CASES, *LONGER])
def test_threads_compute_what_lanes_compute(name):
    case = (CASES | LONGER)[name]
    assert_same(record(on_gpu(HostDevice(), case)), record(solved(case, "cpu")), tolerance_of(case))


def test_several_launches_give_what_one_gives():
    model, span, _, params, _, how = CASES["rows"]
    case = model, span, [1.0, 1.0, 1.0], params | {"rho": np.linspace(0, 21, 100)}, "rho", how
    whole, small = HostDevice(), HostDevice(memory=20_000)
    one, several = (record(on_gpu(gpu, case)) for gpu in (whole, small))
    assert whole.launches == [100] and len(small.launches) > 1 and sum(small.launches) == 100
    for name, value in one.items():
        np.testing.assert_array_equal(several[name], value, name)


def test_members_with_many_events_are_solved_again_with_more_room():
    gpu = HostDevice()
    found, wanted = record(on_gpu(gpu, LONGER["many events"])), record(solved(LONGER["many events"], "cpu"))
    assert gpu.launches[0] == 3 and gpu.launches[1] == 2
    np.testing.assert_array_equal(found["member"], wanted["member"])


@pytest.mark.parametrize("how", [{}, {"t_eval": None}])
def test_reductions_are_those_of_the_rows(how):
    model, span, _, params, _, given = CASES["rows"]
    case = model, span, [1.0, 1.0, 1.0], params | {"rho": np.linspace(0, 21, 150)}, "rho", given | how
    reduced, kept = (on_gpu(HostDevice(), case, **more) for more in ({"reduce": ("mean", "max")}, {}))
    rows = kept.ys if how == {} else kept.y1
    np.testing.assert_allclose(reduced.reduced["mean"], rows.mean(axis=0), rtol=1e-13)
    np.testing.assert_array_equal(reduced.reduced["max"], rows.max(axis=0))


def test_results_can_stay_where_they_are():
    left, brought = (on_gpu(HostDevice(), CASES["rows"], on_device=flag) for flag in (True, False))
    np.testing.assert_array_equal(left.ys, brought.ys)


def test_results_that_do_not_fit_cannot_stay():
    with pytest.raises(ArgumentError, match="3 members do not fit on the GPU"):
        on_gpu(HostDevice(memory=200), CASES["rows"], on_device=True)


def test_a_member_too_large_for_the_gpu_is_refused_with_numbers():
    gpu = HostDevice(memory=2**20)
    gpu.resident = 270_000
    with pytest.raises(ArgumentError, match=r"lorenz: a member needs [\d,]+ bytes of its own, .* 270,000 members"):
        on_gpu(gpu, (lambda m: (m[0], m[1], m[2], m[3], m[4], m[5] | {"method": "vern9"}))(CASES["rows"]))


@pytest.mark.parametrize("case", ["rows", "resets"])
def test_sensitivities_are_those_of_the_cpu(case, monkeypatch):
    monkeypatch.setattr(ensemble_cuda, "device", HostDevice)
    rho, heights = np.linspace(0, 21, 3), np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 1.0]])
    given, how = {
        "rows": ((lorenz, (0.0, 1.0), np.ones(3), {"rho": rho}), {"batched": "rho", "wrt": ("y0", "rho")}),
        "resets": ((ball, (0.0, 2.0), heights, ()), {"batched": "y0", "wrt": "bounce", "events": FLOOR}),
    }[case]
    gpu, cpu = (odec.sensitivities(*given, t_eval=[0.3, 0.9], target=t, **how) for t in ("cuda", "cpu"))
    for name, wanted in cpu.sensitivities.items():
        np.testing.assert_allclose(gpu.sensitivities[name], wanted, rtol=1e-9, atol=1e-11)


def test_tangents_are_those_of_the_cpu(monkeypatch):
    monkeypatch.setattr(ensemble_cuda, "device", HostDevice)
    given = lorenz, (0.0, 1.0), np.ones(3), {"rho": np.linspace(0, 21, 3)}
    how = {"batched": "rho", "tangents": (None, {"rho": np.array([1.0, -1.0, 2.0])}), "t_eval": [0.3, 0.9]}
    (_, gpu), (_, cpu) = (odec.solve_jvp(*given, target=t, **how) for t in ("cuda", "cpu"))
    np.testing.assert_allclose(gpu, cpu, rtol=1e-9, atol=1e-11)
