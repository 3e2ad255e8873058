"""Flows against dense Jacobians, quadrature and the determinants of flow maps; samples, probes, refusals."""

import pickle

import numpy as np
import pytest
from hypothesis import given

import odec
import odec.neural.flows
from odec.regularizers import JacobianFrobenius, Kinetic
from odec.testing import models
from odec.transforms.jvp import jvp
from odec.transforms.simplify import array_form
from odec.transforms.sparsity import diagonal_colouring

RNG = np.random.default_rng(7)
SPAN = (0.0, 1.0)
TIGHT = {"rtol": 1e-11, "atol": 1e-12}


@odec.dynamics
def network(t, z, w, c, b, v):
    return np.tanh(z @ w + c * t + b) @ v


@odec.dynamics
def separable(t, z, a=0.8):
    return np.sin(a * z) * t


def layers(numbers, units):
    """Parameters of `network` for samples of so many numbers."""
    w, v = RNG.normal(size=(numbers, units)), RNG.normal(size=(units, numbers))
    return {"w": w, "c": RNG.normal(size=units), "b": RNG.normal(size=units), "v": v / units}


PARAMS = layers(2, 4)
Z = RNG.normal(size=(4, 2))


def rate(model, t, z, params=()):
    """dlogp/dt at (t, z), by NumPy."""
    return model(t, model.start(z), **dict(params))[1]


def traces(model, t, z, params):
    """The trace of the block of each sample of the dense Jacobian."""
    dense = model.bind(z, params).jacobian(t, z, *params.values()).reshape(z.shape * 2)
    return np.einsum("iaia->i", dense)


def normal(z):
    """log of the standard normal density of each row."""
    return -(z**2).sum(axis=-1) / 2 - z.shape[-1] * np.log(2 * np.pi) / 2


@pytest.mark.parametrize(("samples", "numbers"), [(3, 2), (40, 2), (30, 5), (1, 3)])
def test_exact_trace_is_that_of_the_block_of_each_sample(samples, numbers):
    z, params = RNG.normal(size=(samples, numbers)), layers(numbers, 16)
    model = odec.cnf(network)
    expected = -traces(network, 0.3, z, params)
    assert rate(model, 0.3, z, params) == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("small", [0, 10**6], ids=["by arrays", "by elements"])
@given(found=models(depth=3, smooth=True))
def test_trace_of_any_model_is_that_of_its_jacobian(small, found):
    model = odec.cnf(found.model, batch_axis=None)
    system = found.model.bind(found.y0, found.params, np.float64)
    y, p = system.y_structure.flatten(found.y0, "y"), system.p_structure.flatten(found.params, "p")
    tangent = jvp(system.graph, ["y"])
    columns = [tangent.evaluate(0.2, y, p, unit)["dydt_dot"] for unit in np.eye(y.size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(odec.neural.flows, "SMALL", small)
        got = model(0.2, model.start(found.y0), **found.params)[1]
    np.testing.assert_allclose(got, -np.trace(columns), rtol=1e-9, atol=1e-12 * (1 + np.abs(columns).max()))


def test_a_hidden_layer_is_left_by_one_column_for_each_number():
    flow = odec.cnf(network)
    graph = array_form(flow.bind(flow.start(np.ones((200, 2))), layers(2, 64)).graph)
    shapes = [node.shape for node in graph.nodes if node.op.name == "matmul"]
    assert sorted(shapes) == [(200, 1), (200, 1), (200, 2)]  # the trace takes as many multiplications as f


def test_numbers_that_do_not_meet_share_a_tangent():
    def colours(entries, count):
        rows, columns = np.array(entries).T
        return diagonal_colouring(rows, columns, count).tolist()

    assert colours([(k, k) for k in range(5)], 5) == [0] * 5
    assert max(colours([(i, j) for i in range(4) for j in range(4)], 4)) == 3
    assert colours([(0, 1), (1, 0)], 2) == [-1, -1]
    found = colours([(0, 0), (1, 1), (2, 2), (1, 0), (2, 1)], 3)
    assert found[0] != found[1] != found[2] and max(found) == 1
    tangents_of = [
        node.op.name for node in odec.cnf(separable).bind(odec.cnf(separable).start(np.ones((90, 64)))).graph.nodes
    ]
    assert tangents_of.count("cos") == 1


def test_rotations_keep_the_density():
    @odec.dynamics
    def rotation(t, z):
        return np.stack([z[:, 1], -z[:, 0]], axis=1)

    np.testing.assert_array_equal(rate(odec.cnf(rotation), 0.0, Z), np.zeros(4))


def test_probes_that_are_orthogonal_average_to_the_trace():
    flow = odec.cnf(network, "hutchinson")
    assert list(flow.parameters)[-1] == "probe"
    found = [rate(flow, 0.3, Z, PARAMS | {"probe": np.tile(e, (4, 1))}) for e in ([1.0, 1.0], [1.0, -1.0])]
    assert np.mean(found, axis=0) == pytest.approx(-traces(network, 0.3, Z, PARAMS), rel=1e-13)
    fixed = odec.cnf(network, "hutchinson", probe=np.ones((4, 2)))
    np.testing.assert_array_equal(rate(fixed, 0.3, Z, PARAMS), found[0])


def density(z, params, **how):
    """log p of samples z (n, 2) at t = 0, where p is standard normal at t = 1."""
    flow = odec.cnf(network)
    end, logp = odec.solve(flow, SPAN, flow.start(z), params, t_eval=[], **(TIGHT | how)).y1
    return normal(end) - logp


def test_density_integrates_to_one():
    side = np.linspace(-9.0, 9.0, 91)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    p = np.exp(density(grid, PARAMS, rtol=1e-8, atol=1e-9))
    assert p.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1.0, abs=1e-7)
    assert np.ptp(p / np.exp(normal(grid))) > 0.5  # it is no normal density


def test_log_density_is_that_of_the_determinant_of_the_flow_map():
    h, weights = 1e-2, {-3: -1, -2: 9, -1: -45, 1: 45, 2: -9, 3: 1}  # central differences of order 6
    shifts = np.array([k * h * e for e in np.eye(2) for k in weights])
    moved = (Z[:, None] + shifts).reshape(-1, 2)
    ends = odec.solve(network, SPAN, moved, PARAMS, t_eval=[], **TIGHT).y1.reshape(4, 2, 6, 2)
    slopes = np.einsum("sdkj,k->sjd", ends, np.array(list(weights.values())) / (60 * h))
    _, logdet = np.linalg.slogdet(slopes)
    end = odec.solve(network, SPAN, Z, PARAMS, t_eval=[], **TIGHT).y1
    assert density(Z, PARAMS) == pytest.approx(normal(end) + logdet, abs=1e-8)


def test_sampling_goes_backward_and_carries_the_density():
    flow = odec.cnf(network)
    x, logp = odec.solve(flow, SPAN[::-1], (Z, normal(Z)), PARAMS, t_eval=[], **TIGHT).y1
    assert logp == pytest.approx(density(x, PARAMS), abs=1e-9)


# ---- samples, structures, precision


def test_samples_along_another_axis_in_structures_and_alone():
    expected = rate(odec.cnf(network), 0.3, Z, PARAMS)

    @odec.dynamics
    def turned(t, z, w, c, b, v):
        return network(t, z.T, w, c, b, v).T

    @odec.dynamics
    def apart(t, z, w, c, b, v):
        dz = network(t, np.stack([z["q"], z["v"][:, 0]], axis=1), w, c, b, v)
        return {"q": dz[:, 0], "v": dz[:, 1:]}

    assert rate(odec.cnf(turned, batch_axis=-1), 0.3, Z.T, PARAMS) == pytest.approx(expected, rel=1e-13)
    parts = {"q": Z[:, 0], "v": Z[:, 1:]}
    assert rate(odec.cnf(apart), 0.3, parts, PARAMS) == pytest.approx(expected, rel=1e-13)
    one = odec.cnf(network).start(Z[0])
    assert one[1].shape == () and rate(odec.cnf(network), 0.3, Z[0], PARAMS) == pytest.approx(expected[0], rel=1e-13)
    probe = {"probe": RNG.normal(size=Z.shape)}
    given_ = rate(odec.cnf(network, "hutchinson"), 0.3, Z, PARAMS | probe)
    probe = {"probe": {"q": probe["probe"][:, 0], "v": probe["probe"][:, 1:]}}
    assert rate(odec.cnf(apart, "hutchinson"), 0.3, parts, PARAMS | probe) == pytest.approx(given_, rel=1e-12)


def test_many_samples_are_told_apart():
    z = RNG.normal(size=(5000, 3))
    assert rate(odec.cnf(separable), 0.5, z) == pytest.approx(-0.4 * np.cos(0.8 * z).sum(axis=1), rel=1e-12)

    @odec.dynamics
    def chained(t, z):
        return z - np.roll(z, 1, axis=0)

    with pytest.raises(odec.ShapeError, match=r"sample 0 depends on other samples"):
        odec.cnf(chained).bind(odec.cnf(chained).start(z))


def test_integers_and_single_precision():
    flow = odec.cnf(separable)
    whole, single = flow.start(np.arange(6).reshape(3, 2)), flow.start(np.ones((3, 2), np.float32))
    assert whole[1].dtype == np.float64 and flow.bind(whole).dtype == "float64"
    assert single[1].dtype == np.float32 and flow.bind(single).dtype == "float32"


# ---- gradients


def loss_bar(ys):
    """The gradient of the mean negative log-likelihood by the kept rows (z, logp) of one end."""
    z, logp = ys
    return z / z.shape[1], np.full(logp.shape, 1 / z.shape[1])


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_every_adjoint_gives_the_gradient_of_the_likelihood(trace):
    flow = odec.cnf(network, trace)
    params = PARAMS | ({"probe": np.tile([1.0, -1.0], (4, 1))} if trace == "hutchinson" else {})
    found = {}
    for adjoint in ("discrete", "backsolve", "interpolating"):
        how = {"rtol": 1e-10, "atol": 1e-11, "adjoint": adjoint, "t_eval": []}
        sol, pullback = odec.solve_vjp(flow, SPAN, flow.start(Z), params, **how)
        found[adjoint] = pullback(loss_bar(sol.ys)).params
    for name in PARAMS:
        for adjoint in ("backsolve", "interpolating"):
            np.testing.assert_allclose(found[adjoint][name], found["discrete"][name], rtol=1e-6, atol=1e-8)
    if trace == "exact":
        h, step = 1e-5, np.zeros((2, 4))
        step[1, 3] = h
        moved = [np.mean(density(Z, PARAMS | {"w": PARAMS["w"] + s})) for s in (step, -step)]
        assert found["discrete"]["w"][1, 3] == pytest.approx((moved[1] - moved[0]) / (2 * h), rel=1e-6)


def test_a_batch_and_an_ensemble_agree_with_one_step_size_or_one_each():
    flow, how = odec.cnf(network), {"rtol": 1e-9, "atol": 1e-10, "t_eval": []}
    sol, pullback = odec.solve_vjp(flow, SPAN, flow.start(Z), PARAMS, **how)
    members, back = odec.solve_vjp(flow, SPAN, flow.start(Z), PARAMS, batched=("y0",), **how)
    assert len(set(members.steps.tolist())) > 1  # of their own
    for one, each in zip(sol.y1, members.y1, strict=True):
        np.testing.assert_allclose(each, one, rtol=1e-7, atol=1e-8)
    whole = pullback(loss_bar(sol.ys))
    z_bar, logp_bar = loss_bar(sol.ys)
    apart = back((np.swapaxes(z_bar, 0, 1), np.swapaxes(logp_bar, 0, 1)))
    for name, value in whole.params.items():
        np.testing.assert_allclose(apart.params[name], value, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(apart.y0[0], whole.y0[0], rtol=1e-6, atol=1e-8)
    assert members.stats["nfev"] > 0 and members.steps.shape == (4,)


# ---- with regularisers


@pytest.mark.parametrize("order", ["flow first", "regularisers first"])
def test_regularised_flows_measure_the_samples_and_share_the_probe(order):
    terms, params = (Kinetic(), JacobianFrobenius("probe")), PARAMS | {"probe": RNG.choice([-1.0, 1.0], Z.shape)}
    plain, flow = odec.regularize(network, *terms), odec.cnf(network, "hutchinson")
    expected = rate(flow, 0.3, Z, params), rate(plain, 0.3, Z, params)
    if order == "flow first":
        model = odec.regularize(flow, *terms)
        start = model.start(flow.start(Z))
        (_, logp), r = model(0.3, start, **params)
    else:
        model = odec.cnf(plain, "hutchinson")
        start = model.start(plain.start(Z))
        (_, r), logp = model(0.3, start, **params)
    np.testing.assert_allclose(logp, expected[0], rtol=1e-13)
    np.testing.assert_allclose(r, expected[1], rtol=1e-13)
    assert list(model.parameters) == [*PARAMS, "probe"]
    products = [node for node in model.bind(start, params).graph.nodes if node.op.name == "matmul"]
    assert len(products) == 4  # two of f, two of the probe, whoever asks for it


def test_copies_pickles_and_files(tmp_path):
    flow = odec.cnf(network, "hutchinson", probe=np.ones((4, 2)))
    again = pickle.loads(pickle.dumps(flow))
    np.testing.assert_array_equal(rate(again, 0.3, Z, PARAMS), rate(flow, 0.3, Z, PARAMS))
    system = flow.bind(flow.start(Z), PARAMS)
    system.save(tmp_path / "flow.json")
    assert odec.load(tmp_path / "flow.json").graph.digest == system.graph.digest
    assert system.quadratures == 4 and flow.name == "network_flow"


# ---- refusals


def starred(t, z, *rest):
    return -z


def centred(t, z):
    return z - z.mean(axis=0)


def bound(model, z=Z, params=()):
    return model.bind(model.start(z), params)


REFUSED = {
    "a trace that is none": (lambda: odec.cnf(separable, "exacte"), odec.ArgumentError, "did you mean 'exact'"),
    "a trace in numbers": (lambda: odec.cnf(separable, 2), odec.ArgumentError, "trace is 2"),
    "a probe of an exact trace": (lambda: odec.cnf(separable, probe=Z), odec.ArgumentError, "needs none"),
    "a function as probe": (lambda: odec.cnf(separable, "hutchinson", probe=np.ones), odec.ArgumentError, "like y"),
    "a probe that is no name": (lambda: odec.cnf(separable, "hutchinson", probe="a b"), odec.ArgumentError, "a b"),
    "a probe that is a parameter": (
        lambda: odec.cnf(separable, "hutchinson", probe="a"), odec.ArgumentError, "choose another name",
    ),
    "a named probe behind starred parameters": (
        lambda: odec.cnf(odec.dynamics(starred), "hutchinson"), odec.ArgumentError, "takes .rest",
    ),
    "a plain function": (lambda: odec.cnf(centred), odec.ArgumentError, r"odec.cnf: centred .* @odec.dynamics"),
    "a batch axis in words": (lambda: odec.cnf(separable, batch_axis="rows"), odec.ArgumentError, "is .rows."),
    "a norm in words": (lambda: odec.cnf(separable, in_error_norm="no"), odec.ArgumentError, "odec.cnf: in_error_norm"),
    "a probe of another shape": (
        lambda: bound(odec.cnf(separable, "hutchinson", probe=np.ones(2))), odec.ShapeError, "odec.cnf: probe",
    ),
    "a named probe of another shape": (
        lambda: bound(odec.cnf(separable, "hutchinson"), params={"probe": np.ones(2)}), odec.ShapeError, "is shape",
    ),
    "a probe that is not finite": (
        lambda: bound(odec.cnf(separable, "hutchinson", probe=Z * np.inf)), odec.ArgumentError, "finite numbers",
    ),
    "samples that mix": (
        lambda: bound(odec.cnf(odec.dynamics(centred))), odec.ShapeError, "depends on other samples.*batch_axis=None",
    ),
    "an axis that is missing": (
        lambda: bound(odec.cnf(separable, batch_axis=1), np.ones(3)), odec.ShapeError, "batch_axis is 1.*missing",
    ),
    "a state without logp": (lambda: odec.cnf(separable).bind(Z), odec.ShapeError, r"its state is \(z, logp\).*z0"),
    "a logp of another length": (
        lambda: odec.cnf(separable).bind((Z, np.zeros(3))), odec.ShapeError, r"logp is shape \(3,\), but",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_words(case):
    refused, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words) as raised:
        refused()
    assert ";" in str(raised.value)
