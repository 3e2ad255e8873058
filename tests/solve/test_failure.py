"""A failure explains itself: the operation and the user's line, the worst component, stiffness, and a cure."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import odec
from odec import SolveError, Status


def failure(model, t_span, y0, *args, **options):
    """(message, partial solution) of a solve that must stop early."""
    with pytest.raises(SolveError) as raised:
        odec.solve(odec.dynamics(model), t_span, y0, *args, **options)
    text = str(raised.value)
    assert text.endswith(".") and ".." not in text.replace("...", "")
    return text, raised.value.solution


def line_of(model, below=1):
    return f"test_failure.py:{model.__code__.co_firstlineno + below}"


# ---- which operation was not finite first --------------------------------------------------------------------


def logarithm(t, y):
    return np.log(y)


def draining(t, y):
    return -np.sqrt(y)


def sum_of_roots(t, y):
    x, v = y
    dx = -np.sqrt(x)
    return [dx, v * dx]


def power(t, y):
    return -(y**0.3)


def division(t, y):
    return [1 / (y[0] * 0.0), y[0]]


def arccosine(t, y):
    return np.arccos(y) + 0.5


def guarded(t, y):
    harmless = np.where(y > 0, np.log(y), 1.0) + 1 / (1 / (y - y))
    return harmless * 0 - np.sqrt(y)


def vector(t, y):
    return -np.sqrt(y) + 0 * np.sum(y)


MATRIX = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 1.0]])


def product(t, y):
    return MATRIX @ -np.sqrt(y)


def square_of_exponential(t, y):
    return np.exp(y) ** 2


@pytest.mark.parametrize(
    ("model", "y0", "operation", "below", "where"),
    [
        (draining, [1.0], "np.sqrt(-", 1, "(in the equation of y[0])"),
        (sum_of_roots, [1.0, 2.0], "np.sqrt(-", 2, "(in the equation of y[0])"),
        (power, [1.0], ") ** 0.3 at ", 1, "(in the equation of y[0])"),
        (arccosine, [0.0], "np.arccos(1.0", 1, "(in the equation of y[0])"),
        (guarded, [1.0], "np.sqrt(-", 2, "(in the equation of y[0])"),
        (vector, [9.0, 1.0, 4.0], "np.sqrt(-", 1, "at index [1], in stage"),
        (product, [9.0, 1.0, 25.0], "np.sqrt(-", 1, "at index [1], in stage"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["tsit5", "dopri5"])
def test_leaving_the_domain_names_the_operation_and_the_line(model, y0, operation, below, where, method):
    text, sol = failure(model, (0.0, 20.0), y0, method=method)
    assert sol.status is Status.NON_FINITE
    assert operation in text and f"at {line_of(model, below)} (" in text and where in text
    assert "gave nan first" in text and " of 7 at t = " in text and "np.where" in text


def test_a_division_by_zero_at_the_start_in_full():
    text, sol = failure(division, (0.0, 1.0), [2.0, 1.0])
    assert sol.status is Status.NON_FINITE_START
    assert text == (
        "division: the right-hand side is not finite at the start at t = 0 after 0 steps (0 rejected); "
        "dy[0]/dt is inf: "
        f'1 / 0 at {line_of(division)} ("return [1 / (y[0] * 0.0), y[0]]") gave inf first (in the equation of y[0]). '
        "Check y0 and params."
    )


def test_a_logarithm_at_the_start_in_full():
    text, _ = failure(logarithm, (0.0, 1.0), [1.0, -2.0])
    assert text == (
        "logarithm: the right-hand side is not finite at the start at t = 0 after 0 steps (0 rejected); "
        "dy[1]/dt is nan: "
        f'np.log(-2) at {line_of(logarithm)} ("return np.log(y)") gave nan first, at index [1] (in the equation of '
        "y[1]). Check y0 and params."
    )


def test_overflow_is_told_from_a_domain():
    text, sol = failure(square_of_exponential, (0.0, 1.0), [400.0])
    assert sol.status is Status.NON_FINITE_START
    assert "5.22147e+173 * 5.22147e+173" in text and "gave inf first" in text


def test_components_go_by_their_names():
    named = odec.dynamics(state=("prey", "predator"))(sum_of_roots)
    with pytest.raises(SolveError) as raised:
        odec.solve(named, (0.0, 20.0), [1.0, 2.0])
    assert "(in the equation of prey)" in str(raised.value)


@dataclasses.dataclass
class Tank:
    level: float
    inflow: dict


def filling(t, tank, area):
    return Tank(-np.sqrt(tank.level) / area["top"], {"rate": 0.0 * tank.inflow["rate"]})


def test_structured_states_and_parameters():
    text, _ = failure(filling, (0.0, 20.0), Tank(1.0, {"rate": 1.0}), ({"top": 2.0},))
    assert "np.sqrt(-" in text and "(in the equation of y.level)" in text
    text, _ = failure(filling, (0.0, 20.0), Tank(1.0, {"rate": 1.0}), ({"top": 0.0},))
    assert "(-1) / 0 at " in text or "-1 / 0 at " in text


MIXING = np.linspace(-1.0, 1.0, 60 * 60).reshape(60, 60) / 60


def large(t, y):
    hidden = np.tanh(MIXING @ y)
    return MIXING @ hidden - np.sqrt(y)


def test_a_large_model_whose_step_calls_its_kernel():
    text, sol = failure(large, (0.0, 50.0), np.linspace(0.5, 1.0, 60))
    assert sol.status is Status.NON_FINITE
    assert "np.sqrt(-" in text and f"at {line_of(large, 2)} (" in text and "at index [" in text


def test_a_model_from_a_file_keeps_its_lines(tmp_path):
    path = tmp_path / "model.json"
    odec.dynamics(draining).bind([1.0]).save(path)
    with pytest.raises(SolveError) as raised:
        odec.solve(odec.load(path), (0.0, 20.0), [1.0])
    assert "np.sqrt(-" in str(raised.value) and line_of(draining) in str(raised.value)


def test_float32_states():
    text, sol = failure(draining, (0.0, 20.0), np.ones(1, np.float32), rtol=1e-4, atol=1e-6)
    assert sol.y1.dtype == np.float32 and "np.sqrt(-" in text


def test_a_state_that_overflows_with_finite_slopes():
    text, sol = failure(lambda t, y: 1e300 * np.cos(0 * y), (0.0, 1e10), [1.0], rtol=1e-3, atol=1e305)
    assert sol.status is Status.NON_FINITE and "; y[0] overflowed within the step, though the slopes" in text


# ---- stiffness -----------------------------------------------------------------------------------------------


def van_der_pol(t, y, mu=1e3):
    return [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]


def heat(t, y):
    padded = np.concatenate([[0.0], y, [0.0]])
    return 1e4 * (padded[2:] - 2 * y + padded[:-2])


STIFF = "the steps are held down by stability, not by accuracy (h = "


@pytest.mark.parametrize("method", ["tsit5", "dopri5"])
@pytest.mark.parametrize(("model", "y0"), [(van_der_pol, [2.0, 0.0]), (heat, np.sin(np.linspace(0, 3, 30)))])
def test_stiff_problems_stop_with_the_hint(model, y0, method):
    text, sol = failure(model, (0.0, 2000.0), y0, method=method, max_steps=3000)
    assert sol.status is Status.STEP_LIMIT
    assert STIFF in text and f"{method}'s limit of 3." in text and "stiff for an explicit method. Looser" in text


def test_a_long_stiff_solve_that_ends_says_so():
    sol = odec.solve(odec.dynamics(van_der_pol), (0.0, 5000.0), [2.0, 0.0], t_eval=[], max_steps=10**7)
    assert sol.message.startswith(f"reached the end of the time span; {STIFF}")


OSCILLATOR = (lambda t, y: [y[1], -100.0 * y[0]], [1.0, 0.0])
ARENSTORF_START = [0.994, 0.0, 0.0, -2.00158510637908252240537862224]


def arenstorf(t, y, m=0.012277471):
    x, z, vx, vz = y
    near, far = ((x + m) ** 2 + z**2) ** 1.5, ((x - 1 + m) ** 2 + z**2) ** 1.5
    return [
        vx, vz, x + 2 * vz - (1 - m) * (x + m) / near - m * (x - 1 + m) / far,
        z - 2 * vx - (1 - m) * z / near - m * z / far,
    ]  # fmt: skip


def lorenz(t, y):
    x, v, z = y
    return [10 * (v - x), x * (28 - z) - v, x * v - 8 / 3 * z]


@pytest.mark.parametrize(
    ("model", "y0"),
    [
        OSCILLATOR,
        (lorenz, [1.0, 1.0, 1.0]),
        (arenstorf, ARENSTORF_START),
        (lambda t, y: -y + np.sin(t), [1.0]),
        (lambda t, y: np.sin(1e6 * t) + y, [1.0]),
    ],
    ids=("oscillator", "lorenz", "arenstorf", "relaxation", "forcing"),
)
@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_no_hint_where_accuracy_decides(model, y0, rtol):
    text, _ = failure(model, (0.0, 1e5), y0, rtol=rtol, atol=rtol * 1e-2, max_steps=500)
    assert "stability" not in text and "changed fastest. Raise max_steps" in text


def test_a_solve_that_ends_at_once_says_nothing_more():
    sol = odec.solve(odec.dynamics(van_der_pol), (0.0, 1.0), [2.0, 0.0])
    assert sol.message == "reached the end of the time span"


# ---- fixed steps, events, the page ---------------------------------------------------------------------------------


def test_a_fixed_step_that_is_too_large():
    text, sol = failure(lambda t, y: -50 * y**3, (0.0, 5.0), [1.0], method="euler", first_step=0.2)
    assert sol.status is Status.NON_FINITE and "however small" not in text
    assert ") ** 3 at test_failure.py:" in text and "at the end of the step at t = " in text
    assert text.endswith("The step may be too large for euler: lower first_step.")


def test_an_event_that_never_lets_time_move_on_is_named():
    never, always = odec.Event(lambda t, y: y[0] - 5), odec.Event(lambda t, y: y[0] - 1, reset=lambda t, y: y - 1e-13)
    text, sol = failure(lambda t, y: np.ones(1), (0.0, 2.0), [0.0], events=[never, always])
    assert sol.status is Status.CHATTERING
    assert "; the last was events[1], which happened 1" in text and "Make it terminal, or let its reset" in text


def words_of(text):
    """The words, with every number alike: digits differ from machine to machine."""
    return re.sub(r"\d[\d.,]*(e[-+]\d+)?", "#", " ".join(text.split()))


def test_the_page_on_failures_shows_what_is_printed(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "failures.md").read_text(encoding="utf-8")
    code, shown = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "text"))
    script = tmp_path / "models.py"
    script.write_text("\n".join(code), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert words_of("\n".join(shown)) == words_of(done.stdout)
    assert {status.name for status in Status} - {"SUCCESS", "RUNNING", "INTERRUPTED"} <= set(done.stdout.split())
