"""Regularised dynamics against SymPy, closed forms and dense Jacobians; samples, structures, probes, refusals."""

import copy
import functools
import math
import pickle
import warnings
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import QQ, ring

import odec
from odec.gradient import resting
from odec.regularizers import JacobianFrobenius, Kinetic, Taylor
from odec.testing import models
from odec.transforms.jvp import jvp
from odec.transforms.vjp import vjp

ORDERS = range(1, 7)
RNG = np.random.default_rng(20)
LAYER = {"w": RNG.normal(size=(1, 2)), "c": RNG.normal(size=2), "b": RNG.normal(size=2), "v": RNG.normal(size=(2, 1))}
SAMPLES = RNG.normal(size=(3, 1))
T = 0.3


@odec.dynamics
def layer(t, y, w, c, b, v):
    return np.tanh(y @ w + c * t + b) @ v


@odec.dynamics
def growth(t, y, a=0.8):
    return a * y


def evaluated(model, t, y0, params=()):
    """dr/dt of a regularised model at (t, y0), by NumPy."""
    return model(t, model.start(y0), **params)[1] if isinstance(params, dict) else model(t, model.start(y0), *params)[1]


def pulled(model, t, y0, params):
    """{"y", names}: the gradient of dr/dt[0] by y and the parameters, by NumPy."""
    system = model.bind(model.start(y0), params)
    flat = system.y_structure.flatten(model.start(y0), "y"), system.p_structure.flatten(params, "p")
    bar = np.zeros(system.y_structure.size)
    bar[np.size(y0)] = 1.0
    found = vjp(system.graph).evaluate(t, *flat, bar)
    return {"y": system.y_structure.unflatten(found["y_bar"])[0], **system.p_structure.unflatten(found["p_bar"])}


@functools.cache
def derivatives_of_layer():
    """{name: symbol}, and y^(K) of one sample for K = 1..6, polynomials in them: h is tanh(u), so h' = (1 - h²) u'."""
    names = ("h0", "h1", "w0", "w1", "c0", "c1", "v0", "v1")
    _, *symbols = ring(names, QQ)
    of = dict(zip(names, symbols, strict=True))
    first = sum(of[f"h{i}"] * of[f"v{i}"] for i in range(2))
    found = [first]
    for _ in ORDERS[1:]:
        rates = {f"h{i}": (1 - of[f"h{i}"] ** 2) * (of[f"w{i}"] * first + of[f"c{i}"]) for i in range(2)}
        found.append(sum(found[-1].diff(of[name]) * rate for name, rate in rates.items()))
    return of, found


def layer_by_sympy(order, y):
    """(|y^(K)|², {name: gradient}) of one sample, all of it by SymPy's polynomials."""
    of, derivatives = derivatives_of_layer()
    w, c, b, v = LAYER["w"][0], LAYER["c"], LAYER["b"], LAYER["v"][:, 0]
    h = np.tanh(y * w + c * T + b)
    at = {"h0": h[0], "h1": h[1], "w0": w[0], "w1": w[1], "c0": c[0], "c1": c[1], "v0": v[0], "v1": v[1]}
    point = np.array([at[name] for name in of])

    def value(polynomial):
        return sum(float(factor) * np.prod(point ** np.array(powers)) for powers, factor in polynomial.terms())

    derivative = value(derivatives[order - 1])
    slope = {name: 2 * derivative * value(derivatives[order - 1].diff(symbol)) for name, symbol in of.items()}
    through = np.array([slope["h0"], slope["h1"]]) * (1 - h**2)  # by u = y w + c t + b
    return derivative**2, {
        "y": through @ w,
        "w": [[slope["w0"] + through[0] * y, slope["w1"] + through[1] * y]],
        "c": [slope["c0"] + through[0] * T, slope["c1"] + through[1] * T],
        "b": through,
        "v": [[slope["v0"]], [slope["v1"]]],
    }


@pytest.mark.parametrize("order", ORDERS)
def test_derivative_and_gradients_agree_with_sympy(order):
    by_sympy = [layer_by_sympy(order, y) for y in SAMPLES[:, 0]]
    model = odec.regularize(layer, Taylor(order=order))
    assert evaluated(model, T, SAMPLES, LAYER) == pytest.approx([np.mean([r for r, _ in by_sympy])], rel=1e-12)
    found = pulled(model, T, SAMPLES, LAYER)
    assert found["y"][:, 0] == pytest.approx([g["y"] / len(SAMPLES) for _, g in by_sympy], rel=1e-11)
    for name in LAYER:
        np.testing.assert_allclose(found[name], np.mean([g[name] for _, g in by_sympy], axis=0), rtol=1e-10)
    apart = odec.regularize(layer, Taylor(order=order), per_sample=True)
    assert evaluated(apart, T, SAMPLES, LAYER)[0] == pytest.approx([r for r, _ in by_sympy], rel=1e-12)


def test_compiled_gradient_agrees_with_sympy():
    order = 4
    model = odec.regularize(layer, Kinetic(), Taylor(order=order))
    system = model.bind(model.start(SAMPLES), LAYER)
    bar = np.zeros((3, 1)), np.array([0.0, 1.0])
    _, y_bar, p_bar = system.vjp(T, model.start(SAMPLES), *LAYER.values(), cotangent=bar)
    by_sympy = [g for _, g in (layer_by_sympy(order, y) for y in SAMPLES[:, 0])]
    np.testing.assert_allclose(y_bar[0][:, 0], [g["y"] / 3 for g in by_sympy], rtol=1e-10)
    for name, found in zip(LAYER, p_bar, strict=True):
        np.testing.assert_allclose(found, np.mean([g[name] for g in by_sympy], axis=0), rtol=1e-10)


def test_integral_and_gradient_of_a_linear_equation():
    a, y0, end = 0.8, np.array([0.5, -1.2]), 1.0
    model = odec.regularize(growth, *(Taylor(order=k) for k in ORDERS))
    sol, pullback = odec.solve_vjp(model, (0.0, end), model.start(y0), {"a": a}, rtol=1e-12, atol=1e-13, t_eval=[])
    grown = math.expm1(2 * a * end) / 2
    exact = np.array([a ** (2 * k - 1) * grown for k in ORDERS]) * (y0 @ y0)
    np.testing.assert_allclose(sol.y1[1], exact, rtol=1e-12)
    for i, k in enumerate(ORDERS):
        gradient = pullback((np.zeros((1, 2)), np.eye(6)[None, i]))
        np.testing.assert_allclose(gradient.y0[0], 2 * a ** (2 * k - 1) * grown * y0, rtol=1e-11)
        by_a = (2 * k - 1) * a ** (2 * k - 2) * grown + a ** (2 * k - 1) * end * math.exp(2 * a * end)
        assert gradient.params["a"] == pytest.approx(by_a * (y0 @ y0), rel=1e-11)


@given(found=models(depth=3, smooth=True), order=st.integers(1, 4))
def test_rate_is_the_square_of_the_total_derivative(found, order):
    model = odec.regularize(found.model, Taylor(order=order), batch_axis=None)
    system = found.model.bind(found.y0, found.params, np.float64)
    y = system.y_structure.flatten(found.y0, "y")
    p = system.p_structure.flatten(found.params, "p")
    derivative = f = system.graph
    for _ in range(order - 1):
        derivative = along_solution(derivative, f)
    (exact,) = derivative.evaluate(0.2, y, p).values()
    with np.errstate(over="ignore"):
        assert evaluated(model, 0.2, found.y0, found.params)[0] == pytest.approx(exact @ exact, rel=1e-8, abs=1e-14)


def along_solution(g, f):
    """dg/dt along dy/dt = f, by a tangent: (t, y) moves as (1, f)."""
    from odec.graph.function import Function
    from odec.graph.node import constant

    t, y, p = f.inputs.values()
    (rate,) = f.outputs.values()
    along = jvp(g, ("t", "y"))
    (tangent,) = along(t, y, p, constant(1.0, t.dtype), rate).values()
    return Function("along", f.inputs, {"dydt": tangent})


@pytest.mark.parametrize("order", ORDERS)
def test_matrix_products_are_one_of_each_kind_an_order(order):
    model = odec.regularize(layer, *(Taylor(order=k) for k in range(1, order + 1)))
    graph = model.bind(model.start(SAMPLES), LAYER).graph

    def products(function):
        return sum(node.op.name == "matmul" for node in function.nodes)

    assert products(graph) == 2 * order
    assert products(vjp(graph)) == 3 * 2 * order


def test_kinetic_is_the_first_derivative():
    both = evaluated(odec.regularize(layer, Kinetic(), Taylor(order=1)), T, SAMPLES, LAYER)
    slope = layer(T, SAMPLES, **LAYER)
    assert both[0] == both[1] == pytest.approx(np.mean(slope**2), rel=1e-14)


def test_jacobian_norm_agrees_with_the_dense_jacobian():
    probe = RNG.choice([-1.0, 1.0], SAMPLES.shape)
    dense = layer.bind(SAMPLES, LAYER).jacobian(T, SAMPLES, *LAYER.values())
    squares = (probe.ravel() @ dense) ** 2
    mean = odec.regularize(layer, JacobianFrobenius(probe))
    assert evaluated(mean, T, SAMPLES, LAYER) == pytest.approx([squares.mean()], rel=1e-13)
    apart = odec.regularize(layer, JacobianFrobenius(probe), Kinetic(), per_sample=True)
    assert evaluated(apart, T, SAMPLES, LAYER)[0] == pytest.approx(squares, rel=1e-13)


def test_units_as_probes_sum_to_the_frobenius_norm():
    y = np.array([0.4, -0.7, 1.1])

    @odec.dynamics
    def coupled(t, y, k=2.0):
        return np.stack([np.sin(y[1] * y[2]), k * y[0] ** 2, np.exp(-y[0] * y[2])])

    model = odec.regularize(coupled, *(JacobianFrobenius(row) for row in np.eye(3)))
    dense = coupled.bind(y).jacobian(0.0, y, 2.0)
    assert evaluated(model, 0.0, y).sum() == pytest.approx(np.sum(dense**2), rel=1e-13)


def test_probe_by_name_is_the_last_parameter_and_compiles_once():
    model = odec.regularize(layer, JacobianFrobenius("noise"), Taylor(order=2))
    fixed = [RNG.normal(size=SAMPLES.shape) for _ in range(2)]
    assert list(model.parameters) == [*LAYER, "noise"]
    ends = []
    for probe in fixed:
        given_ = LAYER | {"noise": probe}
        own = odec.regularize(layer, JacobianFrobenius(probe), Taylor(order=2))
        np.testing.assert_array_equal(evaluated(model, T, SAMPLES, given_), evaluated(own, T, SAMPLES, LAYER))
        ends.append(odec.solve(model, (0.0, 0.5), model.start(SAMPLES), params=given_, t_eval=[]).y1[1])
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-6) and ends[0][0] != pytest.approx(ends[1][0], rel=1e-3)
    assert model.bind(model.start(SAMPLES), given_) is model.bind(model.start(SAMPLES), LAYER | {"noise": fixed[0]})


class Pendulums(NamedTuple):
    angle: np.ndarray
    speed: np.ndarray


STRUCTURES = {
    "tuple": (np.array([0.3, 0.5]), np.array([0.1, -0.2])),
    "dict": {"q": np.array([0.3, 0.5]), "v": np.array([0.1, -0.2])},
    "namedtuple": Pendulums(np.array([0.3, 0.5]), np.array([0.1, -0.2])),
}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_structured_states(kind):
    y0 = STRUCTURES[kind]

    @odec.dynamics
    def swinging(t, y, k=1.5):
        q, v = y.values() if isinstance(y, dict) else y
        made = v, -k * np.sin(q)
        return dict(zip(y, made, strict=True)) if isinstance(y, dict) else type(y)(*made) if kind != "tuple" else made

    q, v = y0.values() if isinstance(y0, dict) else y0
    squares = (1.5 * np.sin(q)) ** 2 + (1.5 * np.cos(q) * v) ** 2  # of the second derivatives of q and v
    whole = odec.regularize(swinging, Taylor(order=2))
    mean = odec.regularize(swinging, Taylor(order=2), batch_axis=0)
    apart = odec.regularize(swinging, Taylor(order=2), batch_axis=0, per_sample=True)
    assert evaluated(whole, 0.0, y0) == pytest.approx([squares.sum()], rel=1e-14)
    assert evaluated(mean, 0.0, y0) == pytest.approx([squares.mean()], rel=1e-14)
    assert evaluated(apart, 0.0, y0)[0] == pytest.approx(squares, rel=1e-14)
    assert type(whole(0.0, whole.start(y0))[0]) is type(y0)


def test_samples_along_another_axis():
    y = RNG.normal(size=(2, 5))
    apart = odec.regularize(growth, Kinetic(), batch_axis=-1, per_sample=True)
    assert evaluated(apart, 0.0, y)[0] == pytest.approx(np.sum((0.8 * y) ** 2, axis=0), rel=1e-14)
    mean = odec.regularize(growth, Kinetic(), batch_axis=1)
    assert evaluated(mean, 0.0, y)[0] == pytest.approx(np.sum((0.8 * y) ** 2) / 5, rel=1e-14)


def test_single_precision_stays_single():
    y0 = SAMPLES.astype(np.float32)
    model = odec.regularize(layer, Taylor(order=3))
    system = model.bind(model.start(y0), LAYER)
    assert system.dtype == "float32" and model.start(y0)[1].dtype == np.float32


def test_names_defaults_and_components_follow_the_model():
    @odec.dynamics(state=("q", "v"))
    def named(t, y, k=2.0):
        return [y[1], -k * y[0]]

    model = odec.regularize(named, Taylor(order=2), Kinetic())
    assert model.name == "named_regularized" and model.parameters == {"k": 2.0}
    assert model.bind(model.start([1.0, 0.0])).state == ("q", "v", "R_2", "kinetic")
    again = odec.regularize(model, Kinetic())
    (_, inner), outer = again.start(model.start([1.0, 0.0])), evaluated(again, 0.0, model.start([1.0, 0.0]))
    assert inner.shape == (1,) and outer == pytest.approx([4.0], rel=1e-14)  # of y, not of r


def test_copies_pickles_and_files(tmp_path):
    model = odec.regularize(layer, Taylor(order=2), JacobianFrobenius(SAMPLES))
    same = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    model.bind(model.start(SAMPLES), LAYER).save(tmp_path / "model.json")
    rates = [evaluated(m, T, SAMPLES, LAYER) for m in (model, *same)]
    np.testing.assert_array_equal(rates[0], rates[1])
    np.testing.assert_array_equal(rates[0], rates[2])
    read = odec.load(tmp_path / "model.json")
    assert read.graph.digest == model.bind(model.start(SAMPLES), LAYER).graph.digest


def relu_network(t, y, w=2.0):
    return np.maximum(0.0, w * y) - y


def test_kinks_are_said_and_the_smooth_pieces_are_differentiated():
    model = odec.regularize(odec.dynamics(relu_network), Taylor(order=2))
    with pytest.warns(
        UserWarning, match=r'relu_network.*test_regularizers.py.*"return np.maximum.*jumps .* not seen'
    ) as seen:
        model.bind(model.start(np.array([0.5, -0.5])))
    assert seen[0].filename == __file__
    assert evaluated(model, 0.0, np.array([0.5, -0.5])) == pytest.approx([0.5**2 + 0.5**2], rel=1e-14)


@pytest.mark.parametrize("term", [Kinetic(), Taylor(order=1), JacobianFrobenius(np.ones(2))])
def test_first_order_terms_do_not_mind_kinks(term):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluated(odec.regularize(odec.dynamics(relu_network), term), 0.0, np.array([0.5, -0.5]))


def test_smooth_functions_with_branch_points_are_smooth():
    @odec.dynamics
    def root(t, y):
        return np.sqrt(1.0 + y**2)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluated(odec.regularize(root, Taylor(order=2)), 0.0, np.array([2.0])) == pytest.approx([4.0])


@pytest.mark.parametrize("order", [0, -1, 21, 2.0, "3", True, None, np.float64(2)])
def test_orders_that_are_none(order):
    with pytest.raises(odec.ArgumentError, match=r"Taylor: order is .*an integer from 1 to 20 is needed"):
        Taylor(order=order)


def starred(t, y, *rest):
    return -y


Y = np.ones((2, 3))
REFUSED = {
    "no terms": (lambda: odec.regularize(growth), odec.ArgumentError, "at least one is needed"),
    "a class": (lambda: odec.regularize(growth, Kinetic), odec.ArgumentError, "call it, as Kinetic"),
    "a number": (lambda: odec.regularize(growth, 3), odec.ArgumentError, "3 is no term"),
    "a function": (lambda: odec.regularize(relu_network, Kinetic()), odec.ArgumentError, "@odec.dynamics"),
    "an axis in words": (
        lambda: odec.regularize(growth, Kinetic(), batch_axis="first"), odec.ArgumentError, "batch_axis is 'first'",
    ),
    "a truth value as axis": (
        lambda: odec.regularize(growth, Kinetic(), batch_axis=True), odec.ArgumentError, "batch_axis is True",
    ),
    "per_sample in words": (
        lambda: odec.regularize(growth, Kinetic(), per_sample="yes"), odec.ArgumentError, "per_sample is 'yes'",
    ),
    "a norm in words": (
        lambda: odec.regularize(growth, Kinetic(), in_error_norm="no"), odec.ArgumentError, "in_error_norm is 'no'",
    ),
    "no probe": (lambda: JacobianFrobenius(None), odec.ArgumentError, "probe is None"),
    "no name": (lambda: JacobianFrobenius("a b"), odec.ArgumentError, "name of a parameter"),
    "a probe that is another parameter": (
        lambda: odec.regularize(growth, JacobianFrobenius("a")), odec.ArgumentError, "choose another name",
    ),
    "a named probe behind starred parameters": (
        lambda: odec.regularize(odec.dynamics(starred), JacobianFrobenius("probe")), odec.ArgumentError, "takes .rest",
    ),
    "a probe of another shape": (
        lambda: bound(JacobianFrobenius(np.ones(3))), odec.ShapeError, r"growth_regularized: JacobianFrobenius: probe",
    ),
    "a probe that is not finite": (
        lambda: bound(JacobianFrobenius(np.full((2, 3), np.nan))), odec.ArgumentError, "probe holds nan",
    ),
    "a named probe of another shape": (
        lambda: bound(JacobianFrobenius("e"), params={"e": np.ones(3)}), odec.ShapeError, "e is shape .*like y",
    ),
    "samples without an axis": (
        lambda: bound(Kinetic(), y0=np.ones(3), per_sample=True), odec.ShapeError, "has no batch axis",
    ),
    "an axis that is missing": (
        lambda: bound(Kinetic(), batch_axis=2), odec.ShapeError, "batch_axis is 2.*that axis is missing",
    ),
    "numbers of samples that differ": (
        lambda: bound(Kinetic(), y0=(np.ones(2), np.ones(3)), batch_axis=0), odec.ShapeError, "differ in its length",
    ),
    "a state without r": (
        lambda: odec.regularize(growth, Kinetic()).bind(Y), odec.ShapeError, r"its state is \(y, r\).*model.start",
    ),
    "an r of another length": (
        lambda: odec.regularize(growth, Kinetic()).bind((Y, np.zeros(2))), odec.ShapeError, r"r is shape \(2,\), but",
    ),
}  # fmt: skip


def bound(term, y0=Y, params=(), **how):
    model = odec.regularize(growth, term, **how)
    return model.bind(model.start(y0), {"a": 1.0} | dict(params))


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_words(case):
    refused, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words) as raised:
        refused()
    assert str(raised.value).endswith((".", "it that shape.")) and ";" in str(raised.value)


def outside_the_norm(model=layer, order=3):
    return odec.regularize(model, Taylor(order=order), Kinetic(), in_error_norm=False)


@pytest.mark.parametrize("rtol", [1e-6, np.full((3, 1), 1e-6)])
def test_steps_are_those_of_the_model_where_r_is_outside_the_error_norm(rtol):
    span, model = (0.0, 4.0), outside_the_norm()
    plain = odec.solve(layer, span, SAMPLES, LAYER, rtol=rtol)
    whole = rtol if np.ndim(rtol) == 0 else (rtol, np.ones(2))
    free = odec.solve(model, span, model.start(SAMPLES), LAYER, rtol=whole)
    np.testing.assert_allclose(free.ts, plain.ts, rtol=1e-6)
    np.testing.assert_allclose(free.ys[0], plain.ys, rtol=1e-6)
    inside = odec.regularize(layer, Taylor(order=3), Kinetic())
    held = odec.solve(inside, span, inside.start(SAMPLES), LAYER, rtol=whole)
    assert held.stats["steps"] != plain.stats["steps"]
    np.testing.assert_allclose(free.y1[1], held.y1[1], rtol=1e-4)


def test_r_outside_the_error_norm_in_ensembles_and_files(tmp_path):
    model = outside_the_norm(growth, order=2)
    y0, start = np.array([0.5, -1.2]), model.start(np.array([0.5, -1.2]))
    grown = np.array([0.8**3, 0.8]) * math.expm1(1.6) / 2
    members = odec.solve_ensemble(
        model, (0.0, 1.0), (np.stack([y0, 2 * y0]), np.zeros((2, 2))), batched="y0", rtol=1e-9, atol=1e-11, t_eval=[]
    )
    np.testing.assert_allclose(members.y1[1], np.array([[1.0], [4.0]]) * grown * (y0 @ y0), rtol=1e-7)
    system = model.bind(start)
    system.save(tmp_path / "model.json")
    for same in (odec.load(tmp_path / "model.json"), pickle.loads(pickle.dumps(system))):
        assert (same.measured, same.quadratures) == (2, 2)
    (tmp_path / "model.json").write_text(
        (tmp_path / "model.json").read_text().replace('"measured": 2', '"measured": 9')
    )
    with pytest.raises(odec.LoadError, match="measured is 9, but y has 4 elements"):
        odec.load(tmp_path / "model.json")


@pytest.mark.parametrize(
    "how",
    [{}, {"checkpoints": 4}, {"differentiate_steps": True}, {"adjoint": "backsolve"}, {"adjoint": "interpolating"},
     {"adjoint": "interpolating", "checkpoints": 4}],
    ids=str,
)  # fmt: skip
def test_gradient_without_r_in_the_forward_solve(how):
    model = outside_the_norm()
    given_ = model, (0.0, 4.0), model.start(SAMPLES), LAYER
    bars, found = (RNG.normal(size=(3, 3, 1)), RNG.normal(size=(3, 2))), []
    for only in (False, True):
        sol, pullback = odec.solve_vjp(*given_, rtol=1e-7, t_eval=[1.0, 2.0, 4.0], gradient_only=only, **how)
        found.append((sol, pullback(bars)))
    (whole, exact), (rest, gradient) = found
    assert rest.stats["steps"] == whole.stats["steps"]
    np.testing.assert_allclose(rest.ys[0], whole.ys[0], rtol=1e-8)  # steps differ by rounding
    assert not rest.ys[1].any() and whole.ys[1].all()
    np.testing.assert_allclose(gradient.y0[0], exact.y0[0], rtol=1e-7)
    np.testing.assert_allclose(gradient.t_eval, exact.t_eval, rtol=1e-7)
    for name in LAYER:
        np.testing.assert_allclose(gradient.params[name], exact.params[name], rtol=1e-7)


def test_what_is_solved_without_r_is_the_model_alone():
    model = odec.regularize(layer, Taylor(order=6))
    system = model.bind(model.start(SAMPLES), LAYER)
    count = len(resting(system).graph.nodes)
    assert count < len(layer.bind(SAMPLES, LAYER).graph.nodes) + 6 < len(system.graph.nodes)
    plain = odec.solve(layer, (0.0, 4.0), SAMPLES, LAYER)
    sol, _ = odec.solve_vjp(model, (0.0, 4.0), model.start(SAMPLES), LAYER, gradient_only=True)
    assert sol.stats["steps"] == plain.stats["steps"]


def test_backsolve_does_not_reconstruct_r():
    model = odec.regularize(growth, *(Taylor(order=k) for k in ORDERS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, pullback = odec.solve_vjp(model, (0.0, 2.0), model.start([30.0]), {"a": 3.0}, adjoint="backsolve", t_eval=[])
        gradient = pullback((np.zeros((1, 1)), np.eye(6)[None, 5]))
    exact = 2 * 3.0**11 * 30.0 * math.expm1(12.0) / 2
    assert gradient.y0[0] == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"gradient_only": 1}, "gradient_only is 1; True or False"),
        ({"gradient_only": True, "events": lambda t, y: y[1][0] - 1.0}, "events are watched"),
        ({"gradient_only": True, "batched": "y0"}, "batched is given"),
    ],
)
def test_gradients_alone_are_of_one_solve_without_events(how, words):
    model = odec.regularize(growth, Kinetic())
    with pytest.raises(odec.ArgumentError, match=words):
        odec.solve_vjp(model, (0.0, 1.0), model.start([1.0]), **how)


def test_gradients_alone_are_of_models_with_quadratures():
    with pytest.raises(odec.ArgumentError, match=r"growth: gradient_only=True, but nothing is integrated"):
        odec.solve_vjp(growth, (0.0, 1.0), [1.0], gradient_only=True)
