"""Solutions as xarray Datasets."""

import builtins
from typing import NamedTuple

import numpy as np
import pytest

import odec
from odec.graph.structure import structure_of
from odec.interop.xarray import leaf_names

TIMES = np.linspace(0.0, 1.0, 5)


def decay(t, y):
    return -y


class Arm(NamedTuple):
    angle: float
    joints: np.ndarray


def dataset(y0, state=None):
    solution = odec.solve(odec.dynamics(decay, state=state), (0.0, 1.0), y0, t_eval=TIMES)
    return solution, solution.to_xarray()


def test_named_components_are_a_coordinate():
    solution, found = dataset(np.ones(2), ("prey", "predators"))
    assert found["y"].dims == ("t", "state") and found["state"].values.tolist() == ["prey", "predators"]
    np.testing.assert_array_equal(found["t"], TIMES)
    np.testing.assert_array_equal(found["y"].sel(state="prey"), solution.ys[:, 0])
    assert found["y"].sel(t=0.5, state="predators") == solution.ys[2, 1]


def test_components_without_names_are_called_by_their_place():
    _, found = dataset(np.ones(3))
    assert found["state"].values.tolist() == ["y[0]", "y[1]", "y[2]"]


@pytest.mark.parametrize(
    "shape, dims", [((), ("t",)), ((2, 3), ("t", "y_0", "y_1")), ((2, 1, 2), ("t", "y_0", "y_1", "y_2"))]
)
def test_other_shapes_have_numbered_dimensions(shape, dims):
    solution, found = dataset(np.ones(shape))
    assert found["y"].dims == dims and list(found.data_vars) == ["y"]
    np.testing.assert_array_equal(found["y"], solution.ys)


def test_leaves_of_structures_are_variables():
    model = odec.dynamics(lambda t, y: {"base": -y["base"], "arm": Arm(-y["arm"].angle, -y["arm"].joints)})
    y0 = {"base": np.ones((2, 2)), "arm": Arm(0.5, np.ones(3))}
    solution = odec.solve(model, (0.0, 1.0), y0, t_eval=TIMES)
    found = solution.to_xarray()
    assert {name: v.dims for name, v in found.data_vars.items()} == {
        "base": ("t", "base_0", "base_1"), "arm.angle": ("t",), "arm.joints": ("t", "arm.joints_0"),
    }  # fmt: skip
    np.testing.assert_array_equal(found["arm.joints"], solution.ys["arm"].joints)
    np.testing.assert_array_equal(found["base"], solution.ys["base"])


def test_leaves_take_the_names_that_the_model_gives():
    model = odec.dynamics(lambda t, y: (y[1][0], -y[1]), state=("q", "v", "w"))
    found = odec.solve(model, (0.0, 1.0), (1.0, np.zeros(2)), t_eval=TIMES).to_xarray()
    assert list(found.data_vars) == ["q", "y[1]"] and found["y[1]_0"].values.tolist() == ["v", "w"]


def test_names_that_meet_stay_apart():
    value = {"t": 0.0, "a": [1.0], "a[0]": 2.0, "state": 3.0, "b": np.ones(2), "b_0": 4.0}
    names = leaf_names(structure_of(value, "y"))
    assert len(set(names)) == 6 and not {"t", "state"} & set(names)
    model = odec.dynamics(lambda t, y: {k: -v if k != "a" else [-v[0]] for k, v in y.items()})
    found = odec.solve(model, (0.0, 1.0), value).to_xarray()
    assert len(found.data_vars) == 6 and found["b"].dims == ("t", "b_0_")


def test_attributes_say_how_it_ended_in_numbers_and_text():
    solution, found = dataset(np.ones(2))
    assert found.attrs["model"] == "decay" and found.attrs["status"] == "SUCCESS"
    assert found.attrs["steps"] == solution.stats["steps"]
    assert all(isinstance(v, (int, float, str)) for v in found.attrs.values())


def test_without_xarray_the_extra_is_named(monkeypatch):
    solution, _ = dataset(np.ones(2))
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "xarray":
            raise ImportError
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"odec\[xarray\]"):
        solution.to_xarray()
