"""What cannot be differentiated is said, in words, and what does not enter has a gradient of zeros."""

import re
from pathlib import Path

import numpy as np
import pytest

import odec
from odec.errors import ArgumentError, RoomError, ShapeError, SolveError
from odec.solving import posed

ADJOINTS = ("discrete", "backsolve", "interpolating")
Y0, P = np.array([1.0, 2.0]), (0.5, 2, True)


@odec.dynamics
def pair(t, y, rate, count=2, coupled=True):
    return [-rate * y[0] + 0.1 * count * y[1], y[0] - coupled * y[1]]


@odec.dynamics
def burst(t, y, rate):
    return rate * y**2


@odec.dynamics
def idle(t, y, used, unused):
    return -used * y


def pulled(adjoint, model=pair, params=P, y0=Y0, **options):
    return odec.solve_vjp(model, (0.0, 1.0), y0, params, adjoint=adjoint, **{"t_eval": [0.5, 1.0], **options})


every_adjoint = pytest.mark.parametrize("adjoint", ADJOINTS)

# ---- cotangents and tangents

COTANGENTS = {
    "nan": (
        [[1.0, 0.0], [np.nan, 0.0]],
        ArgumentError,
        r"pair: ys_bar\[0\] of row 1 is nan; finite numbers are needed",
    ),
    "inf": ([[1.0, -np.inf], [0.0, 0.0]], ArgumentError, r"pair: ys_bar\[1\] of row 0 is -inf; finite"),
    "one row": ([1.0, 1.0], ShapeError, r"pair: ys_bar has shape \(2,\).* pass shape \(2, 2\)"),
    "wide": (np.ones((2, 3)), ShapeError, r"pair: ys_bar has shape \(2, 3\).* pass shape \(2, 2\)"),
    "ragged": ([[1.0, 2.0], [1.0]], ShapeError, "pair: ys_bar: rows of different lengths"),
    "complex": (np.ones((2, 2)) * 1j, ArgumentError, "pair: ys_bar: complex values are not supported"),
    "text": ("ones", ArgumentError, "pair: ys_bar: str is not a number"),
    "dict": ({"y": np.ones((2, 2))}, ArgumentError, "pair: ys_bar: dict is not a number"),
}


@every_adjoint
def test_cotangents_that_are_none_are_refused(adjoint):
    _, pullback = pulled(adjoint)
    for bad, error, sentence in COTANGENTS.values():
        with pytest.raises(error, match=sentence):
            pullback(bad)


@every_adjoint
def test_cotangents_may_be_integers_and_all_zero(adjoint):
    _, pullback = pulled(adjoint)
    np.testing.assert_array_equal(pullback(np.ones((2, 2), int)).y0, pullback(np.ones((2, 2))).y0)
    still = pullback(np.zeros((2, 2)))
    assert not any(np.any(part) for part in (still.y0, *still.params, still.t_eval, still.t0, still.t1))


TANGENTS = {
    "nan": (
        (np.array([1.0, np.nan]), None),
        ArgumentError,
        "pair: the tangent of y0 has nan; finite numbers are needed",
    ),
    "inf": ((None, {"rate": np.inf}), ArgumentError, "pair: the tangent of params has inf; finite numbers are needed"),
    "shape": ((np.ones(3), None), ShapeError, r"pair: tangent of y0 has shape \(3,\)"),
    "too few": ((None, (1.0,)), ArgumentError, "pair takes 3 parameters .* but 1 were given"),
    "unknown": ((None, {"rat": 1.0}), ArgumentError, "pair has no parameter 'rat'"),
    "no pair": (3.0, ArgumentError, r"pair: tangents is 3.0; a tuple \(dy0, dparams\) is needed"),
}


@pytest.mark.parametrize("case", TANGENTS)
def test_tangents_that_are_none_are_refused(case):
    bad, error, sentence = TANGENTS[case]
    with pytest.raises(error, match=sentence):
        odec.solve_jvp(pair, (0.0, 1.0), Y0, P, tangents=bad, t_eval=[1.0])


# ---- parameters


@every_adjoint
def test_parameters_that_do_not_enter_have_zeros(adjoint):
    _, pullback = pulled(adjoint, idle, (0.5, np.ones((2, 3))))
    used, unused = pullback(np.ones((2, 2))).params
    assert used != 0.0 and unused.shape == (2, 3) and not unused.any()


def test_parameters_that_do_not_enter_have_zeros_forwards():
    sol = odec.sensitivities(idle, (0.0, 1.0), Y0, (0.5, np.ones((2, 3))), wrt=("unused", "used"), t_eval=[1.0])
    assert sol.sensitivities["unused"].shape == (1, 2, 2, 3) and not sol.sensitivities["unused"].any()
    tangents = (None, (0.0, np.ones((2, 3))))
    _, ys_dot = odec.solve_jvp(idle, (0.0, 1.0), Y0, (0.5, np.ones((2, 3))), tangents=tangents, t_eval=[1.0])
    assert not ys_dot.any()


@every_adjoint
def test_integers_and_truth_values_count_as_real_numbers(adjoint):
    found, expected = (
        pulled(adjoint, params=params, rtol=1e-8)[1](np.ones((2, 2)))
        for params in (P, (np.float64(0.5), np.array(2.0), 1.0))
    )
    np.testing.assert_array_equal(found.params, expected.params)
    assert all(part.dtype == np.float64 for part in found.params)


@pytest.mark.parametrize(
    "name, params, kind",
    [("coupled", P, "bool"), ("count", (0.5, np.int64(2), True), "int64"), ("count", (0.5, np.array(2), 1.0), "int64")],
)
def test_sensitivities_by_integers_are_refused(name, params, kind):
    with pytest.raises(
        ArgumentError, match=f"pair: wrt '{name}' has values of {kind}, and nothing can be .* pass floats"
    ):
        odec.sensitivities(pair, (0.0, 1.0), Y0, params, wrt=name, t_eval=[1.0])


@every_adjoint
def test_parameters_of_another_structure_are_refused(adjoint):
    system = idle.bind(Y0, (0.5, np.ones(3)))
    with pytest.raises(ShapeError, match=r"idle: .*unused.* has shape \(2,\), but the model is bound to \(3,\)"):
        pulled(adjoint, system, (0.5, np.ones(2)))
    with pytest.raises(ShapeError, match=r"idle: y0 has shape \(3,\), but the model is bound to \(2,\)"):
        pulled(adjoint, system, (0.5, np.ones(3)), np.ones(3))


# ---- options


@pytest.mark.parametrize("adjoint", ADJOINTS[1:])
def test_events_of_a_continuous_adjoint_name_the_discrete_one(adjoint):
    with pytest.raises(ArgumentError, match=f"pair: the solve has events.*{adjoint}.*discrete"):
        pulled(adjoint, events=lambda t, y: y[0] - 0.9)


OPTIONS = {
    "t_eval": ({"t_eval": [0.5, 2.0]}, ArgumentError, "t_eval has 2.0, outside the time span"),
    "keyword": ({"rtoll": 1e-3}, TypeError, r"solve_vjp\(\) has no keyword 'rtoll'; did you mean"),
    "inner keyword": ({"records": True}, TypeError, r"solve_vjp\(\) has no keyword 'records'"),
    "mass_matrix": ({"mass_matrix": np.eye(2)}, ArgumentError, "solve_vjp: mass_matrix is not available"),
    "checkpoints": ({"checkpoints": 1}, ArgumentError, "checkpoints is 1; an integer of at least 2 is needed"),
    "text": ({"checkpoints": "disk"}, ArgumentError, "checkpoints is 'disk'; an integer .* or \"file\""),
    "bytes": ({"checkpoints": b"file"}, ArgumentError, "checkpoints is b'file'; an integer"),
}
CONTINUOUS = {
    "seminorm": ({"seminorm": "yes"}, "seminorm is 'yes'; True or False is needed"),
    "None": ({"seminorm": None}, "seminorm is None; True or False is needed"),
    "rtol": ({"adjoint_rtol": -1.0}, "adjoint_rtol is -1.0; a positive finite number is needed"),
    "atol": ({"adjoint_atol": "small"}, "adjoint_atol is 'small'; a positive number"),
    "method": ({"adjoint_method": "tsit"}, "method 'tsit' is not known; did you mean"),
    "fixed": ({"adjoint_method": "rk4"}, "pair: adjoint_method rk4 takes fixed steps, and the solve has no first_step"),
}


@every_adjoint
def test_options_that_cannot_be_are_refused(adjoint):
    for options, error, sentence in OPTIONS.values():
        with pytest.raises(error, match=sentence):
            pulled(adjoint, **options)


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_options_of_the_way_back_are_refused(adjoint):
    for options, sentence in CONTINUOUS.values():
        if adjoint != "discrete":
            with pytest.raises(ArgumentError, match=sentence):
                pulled(adjoint, **options)
        elif "seminorm" not in options:
            with pytest.raises(ArgumentError, match="pair: the discrete adjoint solves nothing; leave adjoint_rtol"):
                pulled(adjoint, **options)


@pytest.mark.parametrize("adjoint", ["back", None, 3, ["discrete"]])
def test_adjoint_that_is_none_is_refused(adjoint):
    with pytest.raises(ArgumentError, match=re.escape(f"adjoint {adjoint!r} is not known")):
        pulled(adjoint)


@pytest.mark.parametrize("given", [4, "file"])
def test_checkpoints_of_backsolve_are_refused(given):
    with pytest.raises(ArgumentError, match=f"checkpoints is {given!r}, but adjoint is 'backsolve', which has none"):
        pulled("backsolve", checkpoints=given)


# ---- solves that fail, and room


@every_adjoint
def test_rows_that_were_reached_are_pulled_back(adjoint):
    how = {"adjoint": adjoint, "throw": False, "rtol": 1e-8}
    sol, pullback = odec.solve_vjp(burst, (0.0, 2.0), [1.0], (1.0,), t_eval=[0.5, 1.5], **how)
    assert len(sol.ts) == 1 and not sol.success
    gradient = pullback([[1.0]])
    np.testing.assert_allclose([gradient.y0[0], gradient.params[0]], [4.0, 2.0], rtol=1e-4)


@every_adjoint
def test_a_solve_without_rows_has_a_gradient_of_zeros(adjoint):
    for t_eval, model in (([1.5], burst), (None, odec.dynamics(lambda t, y, a: a * np.sqrt(y - 2.0)))):
        sol, pullback = odec.solve_vjp(model, (0.0, 2.0), [1.0], (1.0,), adjoint=adjoint, t_eval=t_eval, throw=False)
        assert not sol.success and len(sol.ts) == 0
        gradient = pullback(np.empty((0, 1)))
        assert gradient.y0 == 0.0 and gradient.params[0] == 0.0 and gradient.t0 == 0.0 and gradient.t1 == 0.0


@pytest.mark.parametrize("adjoint", ADJOINTS[1:])
def test_an_end_that_cannot_be_gone_back_from_says_so(adjoint):
    how = {"adjoint": adjoint, "throw": False, "t_eval": []}
    sol, pullback = odec.solve_vjp(burst, (0.0, 2.0), [1.0], (1.0,), **how)
    assert not sol.success
    with pytest.raises(SolveError, match=r'burst: its adjoint, solved backwards .* adjoint="discrete"'):
        pullback([[1.0]])


def test_rows_without_room_are_said():
    given = posed(idle, (0.0, 1.0), Y0, (0.5, 1.0), t_eval=[])
    given.problem.t_eval = np.broadcast_to(0.5, 10**14)
    with pytest.raises(RoomError, match=r"rows take 1,600,000,000,000,000 bytes, .* keep fewer, by t_eval"):
        given.run()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory in use is asked of Linux")
def test_steps_without_room_name_checkpoints():
    import resource

    y0, how = np.ones(50), {"method": "euler", "first_step": 1e-6, "t_eval": [], "max_steps": 10**7}
    solve = lambda steps: odec.solve_vjp(idle, (0.0, steps * 1e-6), y0, (0.5, 1.0), checkpoints=10**7, **how)
    solve(100)  # compiled
    limits = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 64 * 2**20, limits[1]))
    try:
        with pytest.raises(
            RoomError, match=r"steps take [\d,]+ bytes, more than there is memory for; .*checkpoints=64"
        ):
            solve(10**6)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert issubclass(RoomError, MemoryError)
