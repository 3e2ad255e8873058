"""Whatever users get wrong about an ensemble is said in a sentence; and binding a million members is quick."""

import re
import time
import tracemalloc

import numpy as np
import pytest

import odec
from odec import ArgumentError, ShapeError, TraceError
from odec.ensemble_inputs import batch_of, bound_inputs, inputs_of
from odec.integrate.problem import Problem

Y0 = [1.0, 1.0, 1.0]
MANY = np.tile(Y0, (5, 1))


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


@odec.dynamics
def linear(t, y, a):
    return {"u": a["k"] @ y["u"], "w": -a["c"] * y["w"]}


def refused(kind, *words, model=lorenz, t_span=(0.0, 1.0), y0=Y0, params=(), **how):
    """The exact type, and a message that names things and ends as a sentence."""
    with pytest.raises((odec.OdecError, TypeError)) as raised:
        odec.solve_ensemble(model, t_span, y0, params, **how)
    message = str(raised.value)
    assert raised.type is kind, message
    for word in words:
        assert word in message, message
    assert message.endswith((".", "?")) and not re.search(r"\.\.$|<odec|0x", message), message


# ---- what is batched ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batched", "words"),
    [
        ("rh", ("'rh'", "did you mean 'rho'", "y0, sigma, rho, beta")),
        (("y0", "zzz"), ("'zzz'", "y0, sigma, rho, beta")),
        ((3,), ("batched has 3", "no input")),
        (3, ("batched is 3", "('y0', 'rho')")),
        (None, ("batched is None",)),
        (("y0", "y0"), ("'y0' twice",)),
        ((), ("nothing is batched", "odec.solve")),
    ],
)
def test_names(batched, words):
    refused(ArgumentError, "lorenz", *words, y0=MANY if batched == ("y0", "y0") else Y0, batched=batched)


def test_a_parameter_named_as_the_state_must_be_renamed():
    model = odec.dynamics(lambda t, y, y0: y0 - y)
    refused(ArgumentError, "'y0'", "rename", model=model, y0=np.ones((2, 1)), params=(1.0,), batched="y0")


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"params": {"rho": np.ones(4)}}, ArgumentError, ("y0 has 5", "params['rho'] has 4", "one number")),
        ({"params": {"rho": 28.0}}, ShapeError, ("params['rho'] is batched but is one number", "first axis")),
        ({}, ShapeError, ("params['rho'] is batched but is one number",)),
        ({"y0": np.array(1.0), "params": {"rho": np.ones(5)}}, ShapeError, ("y0 is batched but is one number",)),
        ({"params": {"rho": np.ones(0)}, "y0": np.ones((0, 3))}, ArgumentError, ("y0 has no members",)),
        ({"params": {"rho": np.array([1, None], object)}}, ArgumentError, ("params['rho']", "numbers")),
        ({"params": {"rho": ["a"] * 5}}, ArgumentError, ("params['rho']", "numbers")),
        ({"params": {"rho": np.ones(5) * 1j}}, ArgumentError, ("params['rho']", "complex")),
        ({"params": {"rho": [[1.0], [2.0, 3.0]]}}, ShapeError, ("params['rho']", "equal length")),
        ({"y0": np.ones(5), "params": {"rho": np.ones(5)}}, TraceError, ("shape (5,) gives each member a number",)),
        ({"y0": np.ones((5, 4)), "params": {"rho": np.ones(5)}}, TraceError, ("each member shape (4,)",)),
        ({"params": {"rho": np.ones(5), "t": 1.0}}, ArgumentError, ("no parameter 't'",)),
    ],
)
def test_values(given, kind, words):
    refused(kind, "lorenz", *words, **({"y0": MANY, "batched": ("y0", "rho")} | given))


def test_inputs_that_look_batched_are_pointed_at():
    rho = {"rho": np.ones(5)}
    refused(ShapeError, "params['rho'] is not batched, but holds 5", y0=MANY, params=rho, batched="y0")
    named = odec.dynamics(lorenz.function, state=("x", "v", "z"))
    refused(ArgumentError, "y0 has 15", "y0 is not batched", model=named, y0=MANY, params=rho, batched="rho")
    refused(ArgumentError, "y0 has 4", "gives each member shape (4,)", model=named, y0=np.ones((5, 4)), batched="y0")


def test_arrays_of_a_structure_agree_on_the_number_of_members():
    a = {"k": np.zeros((4, 2, 2)), "c": np.ones(4)}
    y0 = {"u": np.ones((3, 2)), "w": np.ones(3)}
    refused(
        ArgumentError, "y0['u'] has 3", "params['a']['k'] has 4", model=linear, y0=y0, params=(a,), batched=("y0", "a")
    )
    y0["u"] = np.ones((2, 2))
    refused(ArgumentError, "y0['u'] has 2", "y0['w'] has 3", model=linear, y0=y0, params=({},), batched="y0")
    refused(ShapeError, "holds no numbers", model=linear, y0=y0, params=({},), batched="a")


def test_members_fit_the_system_they_are_given_to():
    system = lorenz.bind(Y0)
    params = {"sigma": 10.0, "rho": np.ones(5), "beta": 1.0}
    how = {"model": system, "params": params, "batched": "rho"}
    refused(ShapeError, "y0 has shape (2,)", "(3,)", **how | {"y0": [1.0, 1.0]})
    refused(ShapeError, "params['rho'] has shape (1,)", "()", **how | {"params": params | {"rho": np.ones((5, 1))}})
    refused(ArgumentError, "needs the parameter 'rho'", **how | {"params": {"sigma": 1.0, "beta": 1.0}})
    refused(ArgumentError, "float32", "bound to float64", **how | {"dtype": np.float32})
    refused(ArgumentError, "'rhoo'", "did you mean 'rho'", **how | {"batched": "rhoo"})


def test_inputs_that_should_have_been_named_are_said_before_they_are_traced():
    refused(ArgumentError, "nothing is batched", "batched=('y0',)", params={"rho": np.ones(5)})


def test_shared_inputs_must_be_finite():
    rho = {"rho": np.ones(5)}
    refused(ArgumentError, "y0[1] is nan", "finite", y0=[1.0, np.nan, 1.0], params=rho, batched="rho")
    refused(ArgumentError, "params['sigma'] is inf", params=rho | {"sigma": np.inf}, batched="rho")


def test_what_is_no_model_is_refused():
    refused(ArgumentError, "not an odec model", model=lambda t, y: y, y0=MANY, batched="y0")


# ---- times ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t_span", "words"),
    [
        ((0.0, np.ones(4)), ("y0 has 5", "t_span[1] has 4")),
        ((np.zeros(5), np.ones(6)), ("y0 has 5", "t_span[1] has 6")),
        ((0.0, [1.0, 1.0, np.nan, 1.0, 1.0]), ("member 2", "finite")),
        ((0.0, [1.0, 0.0, 1.0, 1.0, 1.0]), ("member 1", "0.0", "differs")),
        ((0.0, [1.0, 2.0, 1.0, -1.0, 1.0]), ("forward in member 0", "member 3", "one direction")),
        ((1.0, [0.0, 2.0, 0.0, 0.0, 0.0]), ("backward in member 0", "member 1")),
        ((0.0, np.ones((5, 1))), ("t_span[1] has shape (5, 1)", "(N,)")),
        ((0.0, ["a"] * 5), ("t_span[1]", "(N,)")),
        ((0.0, [True] * 5), ("t_span[1]", "(N,)")),
        (np.ones((5, 2)), ("t_span", "(t0, t1)")),
        (1.0, ("t_span is 1.0",)),
        ((0.0, 1.0, 2.0), ("t_span is (0.0, 1.0, 2.0)",)),
        ((0.0, 0.0), ("starts and ends at 0.0",)),
        (("a", "b"), ("t_span is ('a', 'b')",)),
        ((0.0, [[1.0], [1.0, 2.0]]), ("t_span",)),
    ],
)
def test_spans(t_span, words):
    refused(ArgumentError, "lorenz", *words, t_span=t_span, y0=MANY, batched="y0")


OWN = np.tile([0.2, 0.4], (5, 1))


def own(i, *row):
    """OWN with another row i."""
    times = OWN.copy()
    times[i] = row
    return times


@pytest.mark.parametrize(
    ("t_eval", "words"),
    [
        ([0.5, 0.4], ("not sorted", "rising")),
        ([0.5, 1.5], ("1.5", "outside the time span (0.0, 1.0)")),
        ([0.5, np.nan], ("nan", "outside")),
        (own(3, 0.5, 0.4), ("member 3", "not sorted")),
        (own(2, 0.5, 1.5), ("member 2", "1.5", "outside")),
        (own(4, np.nan, 0.4), ("member 4", "nan before 0.4")),
        (own(1, np.inf, np.nan), ("member 1", "inf", "outside")),
        (OWN[:4], ("y0 has 5", "t_eval has 4")),
        (OWN[None], ("shape (1, 5, 2)", "(N, m)")),
        (0.5, ("shape ()", "(m,)")),
        ("abc", ("t_eval is 'abc'",)),
        ([[0.1], [0.2, 0.3]], ("t_eval is",)),
    ],
)
def test_times_to_keep(t_eval, words):
    refused(ArgumentError, "lorenz", *words, y0=MANY, batched="y0", t_eval=t_eval)


def test_shared_times_lie_in_the_span_of_every_member():
    ends = [1.0, 3.0, 0.5]
    refused(ArgumentError, "member 2", "0.7", "(0.0, 0.5)", t_span=(0.0, ends), t_eval=[0.2, 0.7])
    begins = [0.0, 0.3, 0.1]
    refused(ArgumentError, "member 1", "0.2", "(0.3, 1.0)", t_span=(begins, 1.0), t_eval=[0.2, 0.7])
    refused(ArgumentError, "member 1", "-0.2", t_span=(0.0, [-1.0, -0.1]), t_eval=[-0.05, -0.2])


def test_stops_lie_within_the_span_of_every_member():
    refused(ArgumentError, "member 1", "0.7", "outside", t_span=(0.0, [1.0, 0.5]), tstops=[0.7])
    refused(ArgumentError, "member 1 begins or ends", t_span=(0.0, [1.0, 0.5]), tstops=[0.5])


# ---- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "kind", "words"),
    [
        ({"dense_output": True}, ArgumentError, ("dense_output", "t_eval")),
        ({"throw": False}, ArgumentError, ("throw", "status", "message(i)")),
        ({"mass_matrix": np.eye(3)}, ArgumentError, ("mass_matrix",)),
        ({"reduces": "mean"}, TypeError, ("'reduces'", "did you mean 'reduce'")),
        ({"reduce": "median"}, ArgumentError, ("'median'", "mean, std, min, max, sum")),
        ({"reduce": ("mean", "meen")}, ArgumentError, ("'meen'", "did you mean 'mean'")),
        ({"reduce": 3}, ArgumentError, ("reduce has 3",)),
        ({"reduce": np.ones(2)}, ArgumentError, ("reduce has",)),
        ({"target": "gpu"}, ArgumentError, ("'gpu'", "cpu, cuda")),
        ({"target": None}, ArgumentError, ("target None",)),
        ({"threads": 0}, ArgumentError, ("threads is 0", "positive integer")),
        ({"threads": -1}, ArgumentError, ("threads is -1",)),
        ({"threads": True}, ArgumentError, ("threads is True",)),
        ({"threads": 2.0}, ArgumentError, ("threads is 2.0",)),
        ({"threads": 2, "target": "cuda"}, ArgumentError, ("threads is 2", "'cuda'")),
        ({"on_device": True}, ArgumentError, ("on_device", "target is 'cpu'")),
        ({"method": "tsit6"}, ArgumentError, ("tsit6",)),
        ({"method": "rk4"}, ArgumentError, ("first_step",)),
        ({"rtol": -1.0}, ArgumentError, ("rtol is -1.0",)),
        ({"atol": np.ones(4)}, ArgumentError, ("atol",)),
        ({"max_steps": 0}, ArgumentError, ("max_steps is 0",)),
        ({"controller": "XY"}, ArgumentError, ("XY",)),
        ({"events": 3}, ArgumentError, ("events is 3",)),
        ({"dtype": int}, ArgumentError, ("dtype int64",)),
    ],
)
def test_options(option, kind, words):
    refused(kind, *words, y0=MANY, batched="y0", **option)


# ---- a million members ----------------------------------------------------------------------------------------


def test_a_million_members_are_bound_at_once():
    size = 1_000_000
    y0, rho = np.ones((size, 3)), np.linspace(0.0, 21.0, size)
    ends = np.linspace(1.0, 2.0, size)
    lorenz.bind(Y0)
    tracemalloc.start()
    began = time.perf_counter()
    inputs = inputs_of(lorenz, y0, {"rho": rho}, ("y0", "rho"))
    system, y, p = bound_inputs(lorenz, inputs, None)
    batch = batch_of(system, inputs, Problem((0.0, 1.0), y, p), (0.0, ends), [0.5], ())
    seconds = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batch.size == size and batch.ends is ends
    assert np.shares_memory(batch.states, y0) and np.shares_memory(batch.parameters, rho)
    assert batch.columns.tolist() == [1] and batch.problem.p.tolist() == [10.0, 0.0, 8 / 3]
    assert seconds < 1.0 and peak < 32 * 2**20
