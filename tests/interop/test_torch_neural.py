"""`odec.torch.odeint` where a network is trained: sums of the solver's estimates, flows, regularised models."""

import numpy as np
import pytest
from small_network import (
    BOTH,
    FIXED,
    PROBES,
    REFUSALS,
    ROUGH,
    START,
    SUMS_BAR,
    TIMES,
    WEIGHTS,
    YS_BAR,
    easy,
    network,
    of_easy,
    of_solve_vjp,
)

import odec
import odec.codegen.compile as compiling
from odec.augmented import Augmented
from odec.errors import ArgumentError
from odec.regularizers import ErrorEstimate

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install odec[torch]")


def leaf(value, dtype=torch.float64):
    return torch.tensor(value, dtype=dtype, requires_grad=True)


def leaves(dtype=torch.float64):
    """The start and the weights, each of which wants its gradient."""
    return leaf(START, dtype), {name: leaf(w, dtype) for name, w in WEIGHTS.items()}


def gradients(y0, weights):
    return [y0.grad.numpy(), *(w.grad.numpy() for w in weights.values())]


def assert_all_close(found, expected, rtol):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


# ---- sums of the solver's own estimates


def test_sums_and_gradients_are_those_of_solve_vjp():
    (y0, weights), t = leaves(), leaf(TIMES)
    ys, sums = odec.torch.odeint(network, y0, t, weights, regularizers=BOTH, **ROUGH)
    torch.autograd.backward((ys, sums), (torch.tensor(YS_BAR), torch.tensor(SUMS_BAR)))
    sol, expected = of_solve_vjp()
    assert sums.shape == (2,) and sums.dtype == torch.float64
    np.testing.assert_array_equal(ys.detach(), sol.ys)
    np.testing.assert_array_equal(sums.detach(), sol.regularizers)
    assert_all_close(gradients(y0, weights), [expected.y0, *expected.params.values()], 1e-12)
    np.testing.assert_allclose(t.grad, expected.t_eval + np.array([expected.t0, 0.0, expected.t1]), rtol=1e-12)


@pytest.mark.parametrize("weigh", [lambda sums: 0.0 * sums.sum(), lambda sums: 0.0], ids=["zero", "unused"])
def test_sums_without_weight_leave_the_plain_gradient(weigh):
    y0, weights = leaves()
    ys, sums = odec.torch.odeint(network, y0, TIMES, weights, regularizers=BOTH, **ROUGH)
    (torch.sum(torch.tensor(YS_BAR) * ys) + weigh(sums)).backward()
    _, plain = of_solve_vjp(regularizers=(), sums_bar=None)
    assert_all_close(gradients(y0, weights), [plain.y0, *plain.params.values()], 1e-12)


def test_sums_alone_have_a_gradient_by_differences():
    def sums(y0, *weights):
        return odec.torch.odeint(network, y0, TIMES, weights, regularizers=BOTH, **FIXED)[1] * torch.tensor([1e3, 1.0])

    y0, weights = leaves()
    assert torch.autograd.gradcheck(sums, (y0, *weights.values()))


def test_sums_need_no_gradient():
    y0, weights = leaves()
    with torch.no_grad():
        ys, sums = odec.torch.odeint(network, y0, TIMES, weights, regularizers=BOTH, **ROUGH)
    sol, _ = of_solve_vjp()
    assert not ys.requires_grad and not sums.requires_grad
    np.testing.assert_array_equal(sums, sol.regularizers)


def test_an_empty_list_of_terms_gives_the_states_alone():
    assert odec.torch.odeint(network, *leaves()[:1], TIMES, WEIGHTS, regularizers=[], **ROUGH).shape == (3, 3, 2)


def test_a_loss_of_both_terms_falls_in_single_precision():
    y0 = torch.tensor(START, dtype=torch.float32)
    weights = {name: torch.nn.Parameter(torch.tensor(w, dtype=torch.float32)) for name, w in WEIGHTS.items()}
    optimizer, losses = torch.optim.SGD(weights.values(), lr=0.05), []
    for _ in range(3):
        optimizer.zero_grad()
        ys, sums = odec.torch.odeint(network, y0, [0.0, 1.0], weights, regularizers=BOTH, **ROUGH)
        terms = torch.mean((ys[-1] + y0) ** 2), sums @ torch.tensor([100.0, 0.01])
        sum(terms).backward()
        optimizer.step()
        losses.append([term.item() for term in terms])
    assert sums.dtype == torch.float32 and np.all(np.diff(np.sum(losses, axis=1)) < 0)


@pytest.mark.parametrize("wanted", [True, False], ids=["with gradients", "without"])
@pytest.mark.parametrize(("how", "words"), REFUSALS)
def test_what_has_no_such_sums_is_said_as_solve_vjp_says_it(how, words, wanted):
    y0 = torch.tensor(START, requires_grad=wanted)
    with pytest.raises(ArgumentError, match=words):
        odec.torch.odeint(network, y0, TIMES, WEIGHTS, **{"regularizers": [ErrorEstimate()], **how})


def test_sums_that_are_weighed_by_nan_are_refused():
    _, sums = odec.torch.odeint(network, leaf(START), TIMES, WEIGHTS, regularizers=BOTH, **ROUGH)
    with pytest.raises(ArgumentError, match="regularizers holds nan; finite numbers are needed"):
        (sums * float("nan")).sum().backward()


# ---- flows and regularised models


def squares(ys):
    (z, logp), r = ys
    return torch.sum(z**2) + torch.sum(logp**2) + torch.sum(r**2)


def test_a_regularised_flow_has_the_gradient_of_solve_vjp():
    y0, weights = leaves()
    start = easy.start(easy.model.start(y0))
    ys = odec.torch.odeint(easy, start, TIMES, weights | {"probe": torch.tensor(PROBES[0])}, **ROUGH)
    squares(ys).backward()
    sol, expected = of_easy(PROBES[0])
    (z, logp), r = ys
    assert (z.shape, logp.shape, r.shape) == ((3, 3, 2), (3, 3), (3, 2))
    for a, b in zip((z, logp, r), (*sol.ys[0], sol.ys[1]), strict=True):
        np.testing.assert_array_equal(a.detach(), b)
    (y0_bar, _), _ = expected.y0
    assert_all_close(gradients(y0, weights), [y0_bar, *list(expected.params.values())[:3]], 1e-12)


def test_integrals_and_sums_enter_one_loss():
    flow, (y0, weights) = easy.model, leaves()
    given = weights | {"probe": PROBES[0]}
    (z, logp), sums = odec.torch.odeint(flow, flow.start(y0), TIMES, given, regularizers=[ErrorEstimate()], **ROUGH)
    (z.sum() + logp.sum() + 100.0 * sums.sum()).backward()
    numbers = (TIMES[0], TIMES[-1]), flow.start(START), WEIGHTS | {"probe": PROBES[0]}
    sol, pullback = odec.solve_vjp(flow, *numbers, t_eval=TIMES, regularizers=[ErrorEstimate()], **ROUGH)
    expected = pullback((np.ones((3, 3, 2)), np.ones((3, 3))), regularizers=[100.0])
    np.testing.assert_array_equal(sums.detach(), sol.regularizers)
    assert_all_close(gradients(y0, weights), [expected.y0[0], *list(expected.params.values())[:3]], 1e-12)


def test_a_flow_starts_from_a_tensor_as_it_is():
    flow, y0 = easy.model, leaf(START, torch.float32)
    z0, logp0 = flow.start(y0)
    assert z0 is y0 and logp0.shape == (3,)
    with torch.no_grad():
        ys = odec.torch.odeint(flow, (z0, logp0), TIMES, WEIGHTS | {"probe": PROBES[0]}, **ROUGH)
    assert [part.dtype for part in ys] == [torch.float32] * 2


def test_probes_of_each_step_compile_nothing(monkeypatch):
    made, object_code, system_of = [], compiling.object_code, Augmented.system_of
    noted = lambda function: lambda *given, **how: made.append(function.__name__) or function(*given, **how)
    _, weights = leaves()
    for step, probe in enumerate(PROBES):
        start = easy.start(easy.model.start(torch.tensor(START)))
        ys = odec.torch.odeint(easy, start, TIMES, weights | {"probe": torch.tensor(probe)}, **ROUGH)
        squares(ys).backward()
        if step == 0:
            monkeypatch.setattr(compiling, "object_code", noted(object_code))
            monkeypatch.setattr(Augmented, "system_of", noted(system_of))
    assert made == []
    easy.model.bind(easy.model.start(np.ones((2, 2))), WEIGHTS | {"probe": np.ones((2, 2))})
    assert "system_of" in made
