"""Which statements run in blocks of rows; that they give the same numbers is tested with all others in the layout."""

import pytest
from array_functions import FUNCTIONS, traced

from odec.codegen.lower_array import lower_array
from odec.codegen.print_python import print_python
from odec.transforms.vjp import vjp


def layers():
    function, shapes, _ = FUNCTIONS["layers"]
    return traced(function, shapes)


@pytest.mark.parametrize("graph", [layers(), vjp(layers())])
def test_layers_and_their_cotangents_run_in_blocks_of_rows(graph):
    kernel = lower_array(graph)
    assert print_python(kernel).count("for block in range(2)") == 1
    assert kernel.work_size < 4.5 * 32 * 128  # of what one statement leaves to the next, only a block is there


def test_rows_that_others_read_are_not_cut_from_them():
    def reversed_rows(z, w1, w2):
        u = z @ w1
        return (u[::-1] * u) @ w2

    kernel = lower_array(traced(reversed_rows, {"z": (64, 5), "w1": (5, 128), "w2": (128, 5)}))
    assert "for block" not in print_python(kernel)


def test_rows_that_stay_in_the_nearest_cache_are_not_cut():
    kernel = lower_array(traced(lambda z, w: (z @ w) @ w.T, {"z": (64, 5), "w": (5, 100)}))
    assert "for block" not in print_python(kernel)
