"""The CUDA kernel's own LLVM IR, compiled for this CPU, against the CPU's ensembles; and the traffic around it."""

import numpy as np
import pytest
from cases import (
    CASES,
    FLOOR,
    LONGER,
    PULLED,
    assert_same,
    assert_same_gradient,
    ball,
    gradient_record,
    lorenz,
    on_gpu,
    pulled,
    record,
    solved,
    standing_for_a_gpu,
    tolerance_of,
)
from host import HostDevice
from hypothesis import given, strategies

import odec
from odec.codegen.cuda_driver import OUT_OF_MEMORY, DriverError
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
    np.testing.assert_array_equal(left.nfev, brought.nfev)


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


# ---- gradients


@pytest.mark.parametrize("name", [*PULLED[:2], "a network"])
def test_gradients_are_those_of_the_cpu(name):
    case = (CASES | LONGER)[name]
    with standing_for_a_gpu(HostDevice()):
        found = gradient_record(pulled(case, "cuda"))
    assert_same_gradient(found, gradient_record(pulled(case, "cpu")), tolerance_of(case))


def many():
    """A hundred members that share their state and two parameters, of the model and the method of "rows"."""
    model, span, _, _, _, how = CASES["rows"]
    return model, span, [1.0, 1.0, 1.0], {"rho": np.linspace(0, 21, 100)}, "rho", how


def test_gradients_of_several_launches_are_those_of_one_bit_by_bit():
    found = []
    for memory in (2**30, 30_000):
        with standing_for_a_gpu(HostDevice(memory)) as gpu:
            found.append(gradient_record(pulled(many(), "cuda")))
            launched = gpu.launches
    assert len(launched) > 9 and sum(launched) == 300  # solved, solved again, gone back over
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value, name)


class Crowded(HostDevice):
    """A GPU whose memory others take before it is asked for."""

    def empty(self, shape, dtype):
        if np.prod(shape) > 400:
            raise DriverError("out of memory", OUT_OF_MEMORY)
        return super().empty(shape, dtype)


def test_gradients_take_fewer_members_at_a_time_where_memory_is_taken_meanwhile():
    with standing_for_a_gpu(Crowded()) as gpu:
        found = gradient_record(pulled(many(), "cuda"))
    assert max(gpu.launches[-2:]) < 100
    assert_same_gradient(found, gradient_record(pulled(many(), "cpu")), 1e-9)


def test_members_that_fail_have_no_gradients_on_a_gpu_either():
    case = (*many()[:-1], many()[-1] | {"max_steps": 20})
    with standing_for_a_gpu(HostDevice()):
        found = pulled(case, "cuda")
    assert 0 < np.count_nonzero(found.params["rho"]) < 100
    assert_same_gradient(gradient_record(found), gradient_record(pulled(case, "cpu")), 1e-9)


def test_members_that_take_more_steps_the_second_time_are_solved_once_more(monkeypatch):
    ens, pullback = vjp_on(HostDevice())
    w = np.ones(ens.ys.shape)
    expected = pullback(w)
    monkeypatch.setattr(pullback._back, "steps", np.maximum(pullback._back.steps - 3, 0))
    np.testing.assert_array_equal(pullback(w).params["rho"], expected.params["rho"])


def test_a_record_too_large_for_the_gpu_is_refused_with_numbers():
    gpu = HostDevice()
    ens, pullback = vjp_on(gpu)
    gpu.memory = 300
    with pytest.raises(ArgumentError, match=r"lorenz: the record of a member of \d+ steps takes [\d,]+ bytes, and 300"):
        pullback(np.ones(ens.ys.shape))


def vjp_on(gpu, rho=(1.0, 5.0, 20.0)):
    """(ens, pullback) of three members."""
    with standing_for_a_gpu(gpu):
        return odec.solve_vjp(lorenz, (0.0, 1.0), np.ones(3), {"rho": np.array(rho)}, batched="rho", t_eval=[0.3, 0.9],
                              target="cuda")  # fmt: skip


ON_THIS_CPU = HostDevice()


@given(strategies.floats(0.0, 21.0), strategies.integers(0, 2**32 - 1))
def test_gradients_are_the_transpose_of_tangents(rho, seed):
    rho, random = rho + np.arange(3.0), np.random.default_rng(seed)
    tangent, w = random.normal(size=3), random.normal(size=(3, 2, 3))
    _, pullback = vjp_on(ON_THIS_CPU, rho)
    with standing_for_a_gpu(ON_THIS_CPU):
        _, rows = odec.solve_jvp(lorenz, (0.0, 1.0), np.ones(3), {"rho": rho}, batched="rho", t_eval=[0.3, 0.9],
                                 tangents=(None, {"rho": tangent}), target="cuda")  # fmt: skip
    terms = np.abs(w * rows).sum()
    assert abs(np.vdot(w, rows) - pullback(w).params["rho"] @ tangent) <= 1e-11 * terms
