"""What cannot be traced is refused with the user's file and line, and with what to write instead."""

import math

import numpy as np
import pytest
from tracing import graph_of

from odec.errors import MissingRuleError, TraceError

Y = np.array([0.3, -1.2, 2.5])


def refusal(function, *arrays, kind=TraceError):
    """The message, without the place, after a check that it names the model and the function's last line."""
    with pytest.raises(kind) as caught:
        graph_of(function, *(arrays or (Y,)))
    message = str(caught.value)
    lines = sorted({n for _, _, n in function.__code__.co_lines() if n is not None})
    start = f"model (test_trace_errors.py:{lines[-1]}): "
    assert message.startswith(start), message
    assert "Node" not in message and "<odec" not in message
    assert message.endswith((".", "add one."))
    return message.removeprefix(start)


# ---- numbers asked for ------------------------------------------------------------------------------------


def test_if_on_a_traced_value():
    def f(y):
        if y[0] > 0: return y  # fmt: skip  # noqa: E701

    message = refusal(f)
    assert message.startswith('"if y[0] > 0: return y')
    assert "asks for the value of a traced array. Tracing knows shapes, not numbers." in message
    assert message.endswith("Use np.where(condition, a, b).")


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y if y[0] > 1 else -y,
        lambda y: [v for v in y if v > 0],
    ],
)
def test_choice_in_an_expression(function):
    assert refusal(function).endswith("Use np.where(condition, a, b).")


def test_while_and_assert():
    def loop(y):
        while y[0] < 1: y = y + 1  # fmt: skip  # noqa: E701

    def check(y):
        assert y[0] > 0

    assert refusal(loop).endswith("Use np.where(condition, a, b).")
    assert refusal(check).endswith("Use np.where(condition, a, b).")


def test_python_s_logic():
    message = refusal(lambda y: np.where((y > 0) and (y < 1), y, 0.0))
    assert message.endswith("Use np.logical_and, np.logical_or, np.logical_not or & | ~ on conditions.")


def test_function_of_math():
    message = refusal(lambda y: math.sin(y[0]))
    assert "asks for the number in a traced value" in message
    assert message.endswith("Use NumPy's function (np.sin for math.sin).")


@pytest.mark.parametrize("convert", [lambda y: float(y[0]), lambda y: int(y[0]), lambda y: y[0].item()])
def test_conversion_to_a_number(convert):
    assert refusal(convert).endswith("Leave the conversion out: a traced value is used as it is.")


@pytest.mark.parametrize(
    "use",
    [
        lambda y, n: [y[0] for _ in range(n)],
        lambda y, n: np.zeros(n),
        lambda y, n: np.linspace(0.0, 1.0, n),
        lambda y, n: y.reshape(n, -1),
        lambda y, n: np.tile(y, n),
        lambda y, n: np.sum(y, axis=n),
        lambda y, n: np.eye(n) @ y,
    ],
)
def test_parameter_as_a_size(use):
    assert "lose over a Python int" in refusal(use, Y, np.float64(3.0))


def test_parameter_as_an_index():
    message = refusal(lambda y, n: y[n], Y, np.float64(1.0))
    assert message.endswith("Use integers known when tracing, or np.interp for a table.")


@pytest.mark.parametrize("number", [lambda y: complex(y[0]), lambda y: round(y[0]), lambda y: 2.0 in y])
def test_other_questions_about_values(number):
    assert "Tracing knows shapes, not numbers." in refusal(number)


# ---- plain arrays -------------------------------------------------------------------------------------------


def test_traced_value_into_a_plain_array():
    def f(y):
        dy = np.zeros(3)
        dy[0] = y[1]

    message = refusal(f)
    assert message.startswith('"dy[0] = y[1]"')
    assert message.endswith(
        "A plain NumPy array cannot hold traced values: make it with np.zeros_like(y), or return a list."
    )


def test_traced_array_into_a_plain_array():
    def f(y):
        dy = np.zeros(3)
        dy[:] = 2 * y

    assert "make it with np.zeros_like(y)" in refusal(f)


def test_plain_array_plus_equals_traced():
    def f(y):
        dy = np.zeros(3)
        dy += y

    assert refusal(f).endswith("Make that array with np.zeros_like(y), or write a = a + b instead of a += b.")


def test_array_of_objects_that_is_compared():
    def f(y):
        z = np.array([y[0], y[1]])
        return np.maximum(z, 0.0)

    assert refusal(f).endswith("z is a NumPy array of objects, made of traced values by np.array; use np.stack([...]).")


def test_np_array_with_a_dtype():
    message = refusal(lambda y: np.array([y[0], y[1]], dtype=float))
    assert message.endswith("np.stack([dx, dy, dz]), or return the list.")


# ---- inputs and shapes ------------------------------------------------------------------------------------------


def test_shape_that_depends_on_values():
    assert refusal(lambda y: y[y > 0]).endswith("Use np.where(mask, a, b).")
    assert "depends on values; use np.where(condition, a, b)" in refusal(lambda y: np.nonzero(y > 0))
    assert "give all three arguments" in refusal(lambda y: np.where(y > 0))
    assert "find the distinct values before the solve" in refusal(lambda y: np.unique(y))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda y: y[5], "index 5 is out of bounds for axis 0 with size 3"),
        (lambda y: y[0, 0], "too many indices: 2 for 1 axes"),
        (lambda y: y + np.ones(4), r"shapes (3,) and (4,) cannot be broadcast together"),
        (lambda y: y @ np.ones((4, 4)), "inner lengths differ, 3 and 4"),
        (lambda y: y.reshape(2, 2), "cannot reshape array of size 3 into shape (2, 2)"),
        (lambda y: np.concatenate([y, np.ones((2, 2))]), "must match"),
        (lambda y: np.sum(y, axis=2), "axis 2 is out of bounds for array of dimension 1"),
        (lambda y: y.copy().__setitem__(slice(2), y), "could not broadcast shape (3,) into (2,)"),
        (lambda y: np.linalg.solve(np.ones((2, 3)), y), "square matrices"),
        (lambda y: np.split(y, 2), "use np.array_split"),
    ],
)
def test_shapes_that_do_not_fit(wrong, words):
    assert words in refusal(wrong)


def test_complex_values():
    message = refusal(lambda y: 1j * y)
    assert "complex128 values are not supported" in message
    assert message.endswith("return real and imaginary parts as a structure.")


@pytest.mark.parametrize(
    "function",
    [lambda y: np.zeros_like(y, dtype=int), lambda y: np.ones_like(y, dtype=complex), lambda y: y.astype(int)],
)
def test_dtypes_that_are_not_real(function):
    assert "values are real" in refusal(function)


# ---- functions ---------------------------------------------------------------------------------------------------


def test_unsupported_function_names_its_neighbours():
    message = refusal(lambda y: np.linalg.eigvals(y.reshape(1, 3)), kind=MissingRuleError)
    assert message.startswith("np.linalg.eigvals is not an odec op")
    assert message.endswith("odec.supported() lists what is; docs/adding_an_op.md shows how to add one.")
    assert "; did you mean 'mean'" in refusal(lambda y: np.nanmean(y), kind=MissingRuleError)


@pytest.mark.parametrize(
    ("function", "cure"),
    [
        (np.round, "use np.floor(x + 0.5)"),
        (np.rint, "use np.floor(x + 0.5)"),
        (np.trunc, "use np.sign(x) * np.floor(np.abs(x))"),
        (np.argmax, "use np.max, or np.where with a comparison"),
        (np.sort, "sort before the solve"),
        (lambda y: y.round(2), "use np.floor(x + 0.5)"),
        (lambda y: y.argmin(), "use np.min"),
        (lambda y: np.interp(y, [0.0, 1.0], [0.0, 1.0], period=2.0), "use np.interp(x % period, xp, fp)"),
        (lambda y: np.interp(0.5, y, [1.0, 2.0, 3.0]), "close over an array"),
        (lambda y: np.interp(y, [1.0, 0.0], [1.0, 2.0]), "sort the table first"),
        (lambda y: np.linalg.norm(y.reshape(1, 3), 2), "use ord 'fro', 1, -1, np.inf or -np.inf"),
        (lambda y: np.pad(y, 1, mode="mean"), "use 'constant', 'edge', 'wrap', 'reflect', 'symmetric'"),
        (lambda y: np.cross(y[:2], y[:2]), "write x1 * y2 - x2 * y1 in the plane"),
        (lambda y: y & y, "compare first, as in (a > 0) & (b > 0)"),
        (lambda y: -(y > 0), "use ~ or np.logical_not"),
        (lambda y: np.add(y, y, where=y > 0), "Use np.where on the result."),
        (lambda y: np.sum(y, where=y > 0), "'where' that can be traced; leave it out"),
        (lambda y: np.add.reduceat(y, [0, 1]), "Call np.add itself."),
    ],
)
def test_refused_function_says_what_to_write(function, cure):
    with pytest.raises(TraceError) as caught:
        graph_of(lambda y: function(y), Y)
    assert cure in str(caught.value)
    assert str(caught.value).startswith("model (test_trace_errors.py:")


def test_error_of_the_user_s_own_code():
    def f(y):
        return {}["absent"]

    message = refusal(f)
    assert message.startswith("raised KeyError: 'absent' while being traced.")
    assert 'The line is "return {}["absent"]".' in message


def test_a_handle_says_what_it_is_when_printed(capsys):
    graph_of(lambda y: (print(y, y[0]), y)[1], Y)
    assert capsys.readouterr().out == "<traced float64[3]> <traced float64[]>\n"
