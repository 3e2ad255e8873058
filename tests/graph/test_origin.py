"""The first operation whose result is not finite is found, and nothing that does no harm is blamed."""

import numpy as np
import pytest
from tracing import graph_of

from odec.graph.trace import source_line


def origin(function, *arrays):
    return graph_of(function, *arrays).first_non_finite(*arrays)


def test_a_finite_result_has_no_origin():
    assert origin(lambda x: np.log(x), np.ones(3)) is None


@pytest.mark.parametrize(
    ("function", "x", "op", "inputs", "value"),
    [
        (lambda x: 2.0 * np.log(x) + 1.0, -0.5, "log", [-0.5], np.nan),
        (lambda x: np.log(x) ** 2, 0.0, "log", [0.0], -np.inf),
        (lambda x: 3.0 - np.sqrt(x - 2.0), 1.0, "sqrt", [-1.0], np.nan),
        (lambda x: x / (x - 1.0), 1.0, "div", [1.0, 0.0], np.inf),
        (lambda x: x**1.5 + x, -4.0, "pow", [-4.0, 1.5], np.nan),
        (lambda x: np.arccos(x) * x, 1.5, "arccos", [1.5], np.nan),
        (lambda x: np.arctanh(x) * x, 1.5, "arctanh", [1.5], np.nan),
        (lambda x: np.arccosh(x) * x, 0.5, "arccosh", [0.5], np.nan),
        (lambda x: np.exp(x) - np.exp(x), 1e3, "exp", [1e3], np.inf),
        (lambda x: np.sin(x * 1e300 * x), 1e10, "mul", [1e10, 1e300], np.inf),
        (lambda x: np.arccosh(np.sqrt(x)), -1.0, "sqrt", [-1.0], np.nan),
        (lambda x: np.log(x) / (x + 1.0), -1.0, "log", [-1.0], np.nan),
    ],
)  # fmt: skip
def test_scalar_operations(function, x, op, inputs, value):
    found = origin(function, np.asarray(x))
    assert found.node.op.name == op
    assert [float(i) for i in found.inputs] == pytest.approx(inputs, rel=1e-15)
    assert found.value == value or (np.isnan(found.value) and np.isnan(value))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.where(x > 0, np.log(x), 0.0) + np.sqrt(x),
        lambda x: 1.0 / (1.0 / (x + 1.0)) + np.sqrt(x),
        lambda x: np.arctan(np.log(x + 1.0)) + np.sqrt(x),
        lambda x: np.fmax(np.log(x), 1.0) + np.sqrt(x),
        lambda x: np.where(x < 0, np.sqrt(x), np.log(x)),
    ],
)
def test_what_does_no_harm_is_not_blamed(function):
    assert origin(function, np.array(-1.0)).node.op.name == "sqrt"


def test_the_element_of_a_vector_is_told():
    x = np.array([1.0, 2.0, -3.0, 4.0])
    found = origin(lambda x: [x[0], np.sum(np.log(x))], x)
    assert (found.node.op.name, found.place, found.output_place) == ("log", 2, 1)
    assert found.inputs[0][found.place] == -3.0


def test_a_matrix_product_leads_to_the_row_it_takes():
    matrix = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    x = np.array([1.0, 4.0, 0.0])
    found = origin(lambda x: matrix @ (1.0 / x), x)
    assert (found.node.op.name, found.place, found.output_place) == ("div", 2, 0)


def test_a_matrix_product_of_finite_numbers_can_overflow_itself():
    matrix = np.full((2, 2), 1e200)
    found = origin(lambda x: matrix @ x, np.array([1e200, 1.0]))
    assert (found.node.op.name, found.value) == ("matmul", np.inf)


def test_a_singular_system_is_blamed_and_not_its_solution():
    found = origin(lambda a: np.linalg.solve(a, np.ones(2)).sum(), np.ones((2, 2)))
    assert found.node.op.name == "solve"


def test_slices_transposes_and_updates_are_followed():
    def rearranged(x):
        y = np.zeros_like(x)
        y[:, 1] = np.log(x)[::-1, 0]
        return y.T

    x = np.array([[1.0, 1.0], [2.0, 1.0], [-3.0, 1.0]])
    found = origin(rearranged, x)
    assert (found.node.op.name, found.output_place) == ("log", 3)
    assert found.inputs[0].flat[found.place] == -3.0


def test_an_input_or_a_constant_can_be_the_origin():
    assert origin(lambda x: x + 1.0, np.array(np.nan)).node.name == "x0"
    assert origin(lambda x: x + np.inf, np.array(1.0)).node.op.name == "constant"


def test_two_numbers_at_fault_are_told_one_at_a_time():
    found = origin(lambda x: np.log(x[0]) + np.sqrt(x[1]), np.array([-1.0, -2.0]))
    assert (found.node.op.name, float(found.inputs[0])) in (("log", -1.0), ("sqrt", -2.0))


def test_the_line_is_the_users():
    def model(x):
        doubled = 2.0 * x
        return np.log(doubled)

    found = origin(model, np.array(-1.0))
    assert source_line(found.node.line) == "return np.log(doubled)"
