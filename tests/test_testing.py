"""check_model finds wrong derivatives and raises no false alarm; models() draws usable models."""

import pickle
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import odec
from odec import special
from odec.errors import ArgumentError
from odec.graph.op import OPS
from odec.ops.recurrence import Recurrence
from odec.testing import check_model, models, references
from odec.testing.check import DERIVATIVES

# ---- models that are right --------------------------------------------------------------------------------


def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


class Pendulum(NamedTuple):
    angle: float
    rate: float


@dataclass
class Shape:
    length: float
    friction: np.ndarray


def pendulum(t, y, shape):
    drag = shape.friction[0] * y.rate + shape.friction[1] * y.rate * np.abs(y.rate)
    return Pendulum(y.rate, -9.81 / shape.length * np.sin(y.angle) - drag + 0.1 * np.cos(2 * t))


def lotka_volterra(t, y, a, b, c, d):
    return {
        "prey": a * y["prey"] - b * y["prey"] * y["predator"],
        "predator": c * y["prey"] * y["predator"] - d * y["predator"],
    }


def riccati(t, x, a, q):
    return a @ x + x @ a.T - x @ x + q


def network(t, z, w1, b1, w2):
    return np.tanh(w1 @ z + b1) @ w2


def heat(t, u, k=1.0):
    du = np.zeros_like(u)
    du[1:-1] = k * (u[2:] - 2 * u[1:-1] + u[:-2])
    du[0], du[-1] = -u[0], np.sin(t) - u[-1]
    return du


def van_der_pol(t, y, mu=3.0):
    return [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]


def robertson(t, y):
    r1, r2, r3 = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return [-r1 + r2, r1 - r2 - r3, r3]


def kepler(t, y):
    r3 = (y[0] ** 2 + y[1] ** 2) ** 1.5
    return [y[2], y[3], -y[0] / r3, -y[1] / r3]


def bodies(t, y, m):
    x, v = y[:2], y[2:]
    d = x[None, :, :] - x[:, None, :]
    r2 = np.sum(d * d, axis=2) + np.eye(2)
    return np.concatenate([v, np.sum(m[None, :, None] * d / r2[:, :, None] ** 1.5, axis=1)])


def mass_matrix(t, y):
    mass = np.array([[2.0, np.cos(y[0] - y[1])], [np.cos(y[0] - y[1]), 1.0]])
    return np.concatenate([y[2:], np.linalg.solve(mass, -np.sin(y[:2]))])


def cancelling(t, y):
    return (y + 1e7) - 1e7 * np.cos(1e-4 * y)


def piecewise(t, y):
    return np.where(y < 1.0, np.maximum(y, 0.2) ** 2, np.minimum(np.abs(y) + np.floor(t), 3.0))


def forced(t, y):
    return np.interp(t, [0.0, 0.3, 0.6, 2.0], [1.0, 2.0, -1.0, 0.5]) - y


Y2 = np.array([0.7, 1.3])
MATRIX = np.array([[0.1, 2.0], [-1.0, 0.3]])
W1 = np.array([[1.0, 2.0], [0.5, -1.0], [0.3, 0.1]])
MODELS = {
    "lorenz": (lorenz, [1.0, 2.0, 3.0], ()),
    "pendulum": (pendulum, Pendulum(0.5, 0.2), (Shape(2.0, np.array([0.1, 0.02])),)),
    "lotka_volterra": (lotka_volterra, {"prey": 10.0, "predator": 5.0}, (1.1, 0.4, 0.1, 0.4)),
    "riccati": (riccati, np.array([[1.0, 0.5], [0.5, 2.0]]), (np.array([[0.0, 1.0], [-1.0, -0.5]]), np.eye(2))),
    "network": (network, np.array([0.1, -0.4]), (W1, np.zeros(3), np.ones((3, 2)))),
    "heat": (heat, np.sin(np.arange(6.0)), ()),
    "van_der_pol": (van_der_pol, [2.0, 0.0], ()),
    "robertson": (robertson, [1.0, 1e-5, 1e-2], ()),
    "kepler": (kepler, [0.4, 0.0, 0.0, 2.0], ()),
    "bodies": (bodies, np.arange(8.0).reshape(4, 2) % 5, (np.array([1.0, 2.0]),)),
    "mass_matrix": (mass_matrix, [0.3, 0.5, 0.0, 0.1], ()),
    "cancelling": (cancelling, Y2, ()),
    "piecewise": (piecewise, Y2, ()),
    "forced": (forced, 1.0, ()),
    "cancelling masks": (lambda t, y: np.sum(np.minimum(np.tanh(y[[0, 0]]), 3.0) * np.array([0.5, -0.5])) * y, Y2, ()),
    "constant": (lambda t, y: np.ones(2), Y2, ()),
    "time only": (lambda t, y: np.array([np.exp(-t), t**3]), Y2, ()),
    "scalar": (lambda t, y, r: r * y * (1 - y), 0.1, (2.0,)),
    "powers": (lambda t, y, a: y**a + y**-2 + y**2.5 + 2.0**y, Y2, (1.7,)),
    "logarithms": (lambda t, y: np.log(y) + np.log2(y) + np.log10(y) + np.log1p(y) + np.sqrt(y) + np.cbrt(y), Y2, ()),
    "exponentials": (lambda t, y: np.exp(-y) + np.exp2(y) + np.expm1(y * 1e-6) + np.logaddexp(y, 1.0), Y2, ()),
    "trigonometry": (lambda t, y: np.sin(y) * np.cos(y) + np.tan(0.5 * y) + np.sinc(y), Y2, ()),
    "inverse": (lambda t, y: np.arcsin(0.3 * y) + np.arccos(0.3 * y) + np.arctan(y) + np.arctan2(y, 2.0), Y2, ()),
    "hyperbolic": (lambda t, y: np.sinh(y) + np.cosh(y) * np.tanh(y), Y2, ()),
    "inverse hyperbolic": (lambda t, y: np.arcsinh(y) + np.arccosh(1.5 + y) + np.arctanh(0.4 * y), Y2, ()),
    "special": (lambda t, y: special.erf(y) + special.sigmoid(y) + special.softplus(y) + special.relu(y), Y2, ()),
    "rounding": (lambda t, y: np.floor(3 * y) + np.ceil(y) + np.mod(y, 0.3) + np.sign(y), Y2, ()),
    "extrema": (lambda t, y: np.maximum(y, y[::-1]) + np.fmin(y, 1.0) + np.hypot(y, t) + np.clip(y, 0.5, 1.0), Y2, ()),
    "reductions": (lambda t, y: y * np.sum(y) + np.prod(y) + np.mean(y) + np.var(y) + np.max(y) + np.cumsum(y), Y2, ()),
    "determinant": (lambda t, y: y * np.linalg.det(np.outer(y, y) + np.eye(2)) + np.linalg.inv(np.diag(y)) @ y, Y2, ()),
    "indices": (lambda t, y: y[[1, 0]] * np.roll(y, 1) + np.concatenate([y[:1], y[1:] ** 2]), Y2, ()),
    "closure": (lambda t, y: MATRIX @ y, Y2, ()),
    "kink at the start": (lambda t, y: np.abs(y) + np.maximum(y, 0.0), np.zeros(2), ()),
    "ill-conditioned": (lambda t, y: np.sin(1e6 * y), Y2, ()),
}  # fmt: skip


@pytest.mark.parametrize(("function", "y0", "params"), MODELS.values(), ids=MODELS)
def test_right_models_pass(function, y0, params):
    report = check_model(odec.dynamics(function), y0, params, examples=6, order=3)
    assert report.points + report.skipped == 6 and report.points >= 3
    assert set(report.comparisons) == {"rhs", "jvp", "vjp", "jacobian", "taylor"}
    assert all(c.numbers > 0 and c.worst <= 1 for c in report.comparisons.values())
    assert "SymPy" in report.comparisons["jvp"].reference
    assert str(report.points) in str(report)


@pytest.mark.parametrize("name", ["lorenz", "network", "heat", "kepler"])
def test_float32_models_pass(name):
    function, y0, params = MODELS[name]
    assert check_model(odec.dynamics(function), y0, params, examples=4, dtype=np.float32, order=2).points == 4


def test_a_model_too_large_for_sympy_is_compared_with_differences(monkeypatch):
    monkeypatch.setattr(references, "LARGEST_MODEL", 0)
    for name in ("lorenz", "network", "kepler", "pendulum"):
        function, y0, params = MODELS[name]
        report = check_model(odec.dynamics(function), y0, params, examples=6)
        assert "too large for SymPy" in report.remarks[0]
        assert "differences" in report.comparisons["vjp"].reference


def test_an_op_without_sympy_form_is_compared_with_differences(monkeypatch):
    def sine_without(*args, **params):
        raise odec.MissingRuleError("sin has no SymPy form")

    record = OPS["sin"]
    before = record.sympy
    try:
        object.__setattr__(record, "sympy", sine_without)
        report = check_model(odec.dynamics(pendulum), *MODELS["pendulum"][1:], examples=3)
    finally:
        object.__setattr__(record, "sympy", before)
    assert "sin has no SymPy form" in report.remarks[0]
    assert report.comparisons["jacobian"].reference == "differences"


# ---- models that are wrong ----------------------------------------------------------------------------------


@pytest.fixture
def wrong_sine():
    """np.sin with a derivative that is wrong where cos is negative enough."""
    record = OPS["sin"]
    rules = {name: getattr(record, name) for name in ("jvp", "vjp", "taylor")}

    def slope(node):
        x = node.inputs[0]
        return OPS["cos"](x) + OPS["maximum"](x - 1.5, 0.0)

    object.__setattr__(record, "jvp", lambda node, tangents: slope(node) * tangents[0])
    object.__setattr__(record, "vjp", lambda node, g: (slope(node) * g,))
    object.__setattr__(
        record, "taylor", lambda node, series: Recurrence(node, linear=lambda parts: slope(node) * parts[0])
    )
    yield
    for name, rule in rules.items():
        object.__setattr__(record, name, rule)


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("large", [False, True], ids=["SymPy", "differences"])
def test_a_wrong_derivative_is_found_and_named(wrong_sine, derivative, large, monkeypatch, tmp_path):
    monkeypatch.setenv("ODEC_CACHE_DIR", str(tmp_path))
    if large:
        monkeypatch.setattr(references, "LARGEST_MODEL", 0)

    def swing(t, y, wrong=1.0):
        return [y[1], -wrong * np.sin(y[0])]

    model = odec.dynamics(swing, state=("angle", "rate"))
    with pytest.raises(AssertionError, match=rf"swing: {derivative}.* by generated code.*angle|{derivative}") as caught:
        check_model(model, [1.6, 0.5], examples=40, derivatives=(derivative,))
    text = str(caught.value)
    assert "tolerance" in text and "t = " in text and "params = {'wrong'" in text
    if derivative == "jacobian" and not large:
        assert "d rate' / d angle" in text


def test_a_model_that_answers_numbers_otherwise_is_found():
    seen = []

    def fickle(t, y):
        seen.append(1)
        return -y if len(seen) == 1 else -2 * y

    with pytest.raises(AssertionError, match="fickle: rhs of y"):
        check_model(odec.dynamics(fickle), [1.0])


def test_the_failing_example_is_the_smallest(wrong_sine, monkeypatch, tmp_path):
    monkeypatch.setenv("ODEC_CACHE_DIR", str(tmp_path))
    with pytest.raises(AssertionError, match=r"at t = 0\.0, y = \[2\.0, 7\.0\], params = \{\}"):
        check_model(odec.dynamics(lambda t, y: np.array([np.sin(y[0]), y[1]])), [2.0, 7.0], derivatives=("jacobian",))


# ---- arguments ----------------------------------------------------------------------------------------------


def test_unknown_derivatives_are_refused():
    with pytest.raises(ArgumentError, match="'jacobean' is not known; did you mean 'jacobian'"):
        check_model(odec.dynamics(lorenz), [1.0, 1.0, 1.0], derivatives=("jacobean",))


def test_a_centre_outside_the_domain_is_refused():
    with pytest.raises(ArgumentError, match="no finite right-hand side near y0"):
        check_model(odec.dynamics(lambda t, y: np.log(y)), [-1.0], examples=5)


def test_a_plain_function_is_a_model():
    assert check_model(lorenz, [1.0, 1.0, 1.0], examples=2, derivatives=("jvp",)).points == 2


# ---- random models --------------------------------------------------------------------------------------------


@given(models())
def test_random_models_are_finite_at_their_point(example):
    model, y0, params = example
    system = model.bind(y0, params)
    (rate,) = system.graph.evaluate(
        0.3, system.y_structure.flatten(y0, "y0"), system.p_structure.flatten(params, "p")
    ).values()
    assert np.all(np.isfinite(rate)), example


@given(models())
def test_random_models_run_as_plain_numpy(example):
    model, y0, params = example
    system = model.bind(y0, params)
    plain = system.y_structure.flatten(model(0.3, y0, **params), "rate")
    (rate,) = system.graph.evaluate(
        0.3, system.y_structure.flatten(y0, "y0"), system.p_structure.flatten(params, "p")
    ).values()
    np.testing.assert_allclose(plain, rate, rtol=1e-9, atol=1e-12)


@given(models(depth=2))
def test_random_models_print_as_source(example):
    text = repr(example)
    assert text.startswith("def random_model(t, y, k, c):\n    return ") and "# y0 = " in text
    compile(text, "model", "exec")


@settings(max_examples=5, suppress_health_check=[HealthCheck.nested_given])
@given(models(depth=2))
def test_random_models_pass_their_check(example):
    check_model(*example, examples=2, order=2)


def test_reports_can_be_kept():
    report = check_model(lorenz, [1.0, 1.0, 1.0], examples=1, derivatives=("jvp",))
    assert pickle.loads(pickle.dumps(report)) == report
