"""`odec.torch.odeint`: solves inside PyTorch, their gradients against PyTorch's own differences and against odec's."""

import subprocess
import sys

import numpy as np
import pytest

import odec
from odec.errors import ArgumentError, ShapeError, SolveError
from odec.gradient import ADJOINTS

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install odec[torch]")

F64 = torch.float64
TIGHT = {"rtol": 1e-11, "atol": 1e-12}
METHODS = {"rk4": {"method": "rk4", "first_step": 0.05}, "tsit5": {"method": "tsit5", **TIGHT}}


@odec.dynamics
def lotka_volterra(t, y, a=1.5, b=1.0, c=3.0, d=1.0):
    return [a * y[0] - b * y[0] * y[1] + 0.1 * np.sin(t), d * y[0] * y[1] - c * y[1]]


@odec.dynamics
def decay(t, y, rate):
    return -rate * y


@odec.dynamics
def pendulum(t, y, rod):
    angle, speed = y
    return type(y)((speed, -rod["g"] / rod["length"] * np.sin(angle)))


@odec.dynamics
def blow_up(t, y):
    return y * y


@odec.dynamics
def network(t, y, w):
    return np.tanh(y**3 @ w["0.weight"].T + w["0.bias"]) @ w["2.weight"].T + w["2.bias"]


def leaf(*values, dtype=F64):
    return torch.tensor(values if len(values) > 1 else values[0], dtype=dtype, requires_grad=True)


# ---- gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [(0.0, 0.33, 0.8, 1.25), (1.0, 0.4, -0.2)], ids=("rising", "falling"))
@pytest.mark.parametrize("how", METHODS.values(), ids=METHODS)
def test_gradients_pass_gradcheck(how, times):
    def rows(y0, t, *params):
        return odec.torch.odeint(lotka_volterra, y0, t, params, **how)

    inputs = leaf(1.0, 0.7), leaf(*times), *(leaf(v) for v in (1.5, 1.0, 3.0, 1.0))
    assert torch.autograd.gradcheck(rows, inputs)


@pytest.mark.parametrize("container", [tuple, list])
def test_nested_inputs_pass_gradcheck(container):
    def rows(angle, speed, g, length):
        y0, rod = container((angle, speed)), {"length": length, "g": g}
        return tuple(odec.torch.odeint(pendulum, y0, [0.0, 0.5, 1.0], {"rod": rod}, **TIGHT))

    assert torch.autograd.gradcheck(rows, (leaf(0.5, 0.1), leaf(0.2, -0.3), leaf(9.81), leaf(1.3, 2.0)))


def test_gradients_are_those_of_solve_vjp():
    y0, t, rate = leaf(1.0, 2.0), leaf(0.0, 0.5, 1.0), leaf(0.7, 1.3)
    ys = odec.torch.odeint(decay, y0, t, (rate,))
    sol, pullback = odec.solve_vjp(decay, (0.0, 1.0), [1.0, 2.0], (np.array([0.7, 1.3]),), t_eval=[0.0, 0.5, 1.0])
    weights = np.arange(6.0).reshape(3, 2)
    ys.backward(torch.from_numpy(weights))
    found = pullback(weights)
    np.testing.assert_array_equal(ys.detach().numpy(), sol.ys)
    np.testing.assert_array_equal(y0.grad.numpy(), found.y0)
    np.testing.assert_array_equal(rate.grad.numpy(), found.params[0])
    np.testing.assert_array_equal(t.grad.numpy(), found.t_eval + np.array([found.t0, 0.0, found.t1]))


def test_only_inputs_that_require_gradients_get_them():
    y0, a, b = torch.tensor([1.0, 0.7], dtype=F64), leaf(1.5), torch.tensor(1)
    odec.torch.odeint(lotka_volterra, y0, [0.0, 1.0], {"d": 1.0, "b": b, "a": a}).sum().backward()
    assert a.grad is not None and y0.grad is None and b.grad is None


def test_a_parameter_that_does_not_enter_gets_zero():
    @odec.dynamics
    def ignoring(t, y, unused):
        return -y

    unused = leaf(1.0, 2.0)
    odec.torch.odeint(ignoring, torch.ones(2), [0.0, 1.0], (unused,)).sum().backward()
    assert unused.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_gradients_survive_a_change_of_the_result_in_place(adjoint):
    def gradient(change):
        y0, rate = leaf(1.0, 2.0), leaf(0.7)
        ys = odec.torch.odeint(decay, y0, [0.0, 0.5, 1.0], (rate,), adjoint=adjoint)
        total = ys.sum()
        if change:
            with torch.no_grad():
                ys.zero_()
        return torch.autograd.grad(total, (y0, rate))

    assert all(torch.equal(a, b) for a, b in zip(gradient(True), gradient(False), strict=True))


def test_backward_can_be_repeated_with_retain_graph():
    rate = leaf(0.7)
    total = odec.torch.odeint(decay, leaf(1.0, 2.0), [0.0, 1.0], (rate,)).sum()
    first, second = (torch.autograd.grad(total, rate, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dependent", [True, False])
def test_second_derivatives_are_refused(dependent):
    y0 = leaf(1.0, 2.0)
    ys = odec.torch.odeint(decay, y0, [0.0, 1.0], (0.5,))
    (slope,) = torch.autograd.grad((ys**2 if dependent else ys).sum(), y0, create_graph=True)
    with pytest.raises(ArgumentError, match="second derivative of a solve"):
        slope.sum().backward()


# ---- dtypes, structures, modes ----------------------------------------------------------------------------


def test_the_dtype_of_the_state_decides():
    rate, t = leaf(0.7), leaf(0.0, 1.0, dtype=torch.float32)
    y0 = leaf(1.0, 2.0, dtype=torch.float32)
    ys = odec.torch.odeint(decay, y0, t, (rate,))
    ys.sum().backward()
    assert ys.dtype == y0.grad.dtype == t.grad.dtype == torch.float32 and rate.grad.dtype == F64
    assert odec.torch.odeint(decay, y0.double(), t, (rate.float(),)).dtype == F64
    torch.testing.assert_close(rate.grad, -2.0 * 1.5 * torch.exp(-rate.detach()) + 0.0, rtol=1e-5, atol=1e-6)


def test_half_precision_states_are_refused():
    with pytest.raises(ArgumentError, match=r"y0 is bfloat16; float32 or float64 is needed"):
        odec.torch.odeint(decay, torch.ones(2, dtype=torch.bfloat16), [0.0, 1.0], (0.5,))


def test_the_result_has_the_structure_of_the_state():
    @odec.dynamics
    def spring(t, y, k):
        return {"v": -k * y["x"], "x": y["v"]}

    ys = odec.torch.odeint(spring, {"x": torch.ones(3), "v": torch.zeros(3)}, torch.tensor([0.0, 1.0]), (4.0,))
    assert list(ys) == ["x", "v"] and ys["x"].shape == (2, 3)
    torch.testing.assert_close(ys["x"][1], torch.cos(torch.tensor(2.0)).expand(3), rtol=1e-4, atol=1e-4)


def test_a_list_of_scalars_is_one_vector():
    prey, predators = leaf(1.0), leaf(0.7)
    ys = odec.torch.odeint(lotka_volterra, [prey, predators], [0.0, 1.0])
    assert ys.shape == (2, 2)
    ys[-1, 0].backward()
    assert prey.grad.ndim == 0 and predators.grad < 0.0
    assert odec.torch.odeint(lotka_volterra, [1.0, 0.7], [0.0, 1.0]).tolist() == ys.tolist()


def test_a_bound_system_is_solved_too():
    system = decay.bind(np.zeros(2), (1.0,))
    rate = leaf(0.7)
    odec.torch.odeint(system, torch.ones(2, dtype=F64), [0.0, 1.0], (rate,)).sum().backward()
    assert rate.grad.item() == pytest.approx(-2.0 * np.exp(-0.7), rel=1e-5)
    with pytest.raises(ShapeError, match="a tuple of tensors where the model has one array"):
        odec.torch.odeint(system, (leaf(1.0), leaf(1.0)), [0.0, 1.0], (rate,))


def test_without_gradients_the_result_needs_none_and_is_the_same():
    y0 = leaf(1.0, 2.0)
    with torch.no_grad():
        plain = odec.torch.odeint(decay, y0, [0.0, 1.0], (0.5,))
    assert not plain.requires_grad
    assert torch.equal(plain, odec.torch.odeint(decay, y0, [0.0, 1.0], (0.5,)))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_network_learns_a_spiral(dtype):
    torch.manual_seed(5)
    t = torch.linspace(0.0, 2.0, 20)
    start = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=dtype)

    @odec.dynamics
    def spiral(t, y, matrix):
        return y**3 @ matrix

    truth = odec.torch.odeint(spiral, start, t, (torch.tensor([[-0.1, 2.0], [-2.0, -0.1]]),))
    net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        ys = odec.torch.odeint(network, start, t, (dict(net.named_parameters()),), rtol=1e-4, atol=1e-4)
        loss = torch.mean((ys - truth) ** 2)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# ---- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradients", [True, False])
def test_a_solve_that_stops_early_raises(gradients):
    y0 = torch.ones(1, dtype=F64, requires_grad=gradients)
    with pytest.raises(SolveError) as stopped:
        odec.torch.odeint(blow_up, y0, [0.0, 2.0])
    assert stopped.value.solution.ts[-1] < 1.0


@pytest.mark.parametrize("t", [[0.0], 0.0, [[0.0, 1.0]], torch.tensor([0.5])])
def test_times_that_are_no_vector_are_refused(t):
    with pytest.raises(ArgumentError, match="a vector of at least two times, the start first, is needed"):
        odec.torch.odeint(decay, torch.ones(2), t, (0.5,))


@pytest.mark.parametrize(
    ("t", "words"),
    [
        ([0.0, 2.0, 1.0], "t is not sorted; rising or falling times are needed"),
        ([0.0, np.nan, 1.0], "t has nan; finite"),
        ([0.0, np.inf], "t has inf; finite"),
        ([2.0, 3.0, 2.0], "t starts and ends at 2.0"),
    ],
)
@pytest.mark.parametrize("gradients", [False, True])
def test_times_that_no_solve_takes_are_refused_by_the_name_they_were_given(t, words, gradients):
    with pytest.raises(ArgumentError, match=f"^odec.torch.odeint: {words}"):
        odec.torch.odeint(decay, torch.ones(2, requires_grad=gradients), t, (0.5,))


@pytest.mark.parametrize("name", ["t_eval", "dtype", "throw", "events", "batched"])
def test_options_that_the_tensors_decide_are_refused(name):
    with pytest.raises(ArgumentError, match=f"odeint: {name} cannot be given, because "):
        odec.torch.odeint(decay, torch.ones(2), [0.0, 1.0], (0.5,), **{name: None})


def test_an_unknown_option_gets_its_nearest():
    with pytest.raises(TypeError, match=r"odec.torch.odeint\(\) has no keyword 'rtoll'; did you mean 'rtol'"):
        odec.torch.odeint(decay, torch.ones(2), [0.0, 1.0], (0.5,), rtoll=1e-3)


def test_options_of_the_gradient_do_nothing_where_none_is_asked_for():
    plain, tuned = (odec.torch.odeint(decay, torch.ones(2), [0.0, 1.0], (0.5,), **k) for k in ({}, {"checkpoints": 8}))
    assert torch.equal(plain, tuned)


def test_cotangents_that_are_not_finite_are_refused():
    ys = odec.torch.odeint(decay, leaf(1.0, 2.0), [0.0, 1.0], (0.5,))
    with pytest.raises(ArgumentError, match="finite numbers are needed"):
        (ys * float("nan")).sum().backward()


def test_without_pytorch_the_extra_is_named():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import odec\n"
        "try: odec.torch.odeint(None, None, None)\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "odec: PyTorch is not installed, which this needs; pip install odec[torch]."
