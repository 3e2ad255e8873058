"""Ensembles as xarray Datasets."""

from typing import NamedTuple

import numpy as np
import pytest
import xarray

import odec
from odec.errors import Status

TIMES = np.linspace(0.0, 1.0, 5)
RATES = np.array([0.5, 1.0, 2.0])
START, NO_SHIFTS = np.array([1.0, 2.0]), np.zeros(2)


class Arm(NamedTuple):
    angle: float
    joints: np.ndarray


@odec.dynamics(state=("prey", "predators"))
def decay(t, y, rate, shifts=NO_SHIFTS):
    return [-rate * y[0] + shifts[0], -rate * y[1] + shifts[1]]


def solved(model=decay, y0=START, params=(RATES,), batched=("rate",), t_span=(0.0, 1.0), t_eval=TIMES, **how):
    ens = odec.solve_ensemble(model, t_span, y0, params, batched=batched, t_eval=t_eval, **how)
    return ens, ens.to_xarray()


def test_rows_have_the_dimensions_trajectory_and_time():
    ens, found = solved()
    assert found["y"].dims == ("trajectory", "t", "state") and list(found.data_vars) == ["y"]
    assert found["state"].values.tolist() == ["prey", "predators"]
    np.testing.assert_array_equal(found["y"], ens.ys)
    np.testing.assert_array_equal(found["t"], TIMES)
    assert found["y"].sel(trajectory=1, t=0.5, state="prey") == ens.ys[1, 2, 0]


def test_numbers_that_are_batched_are_coordinates():
    _, found = solved()
    assert found["rate"].dims == ("trajectory",)
    np.testing.assert_array_equal(found["rate"], RATES)
    assert found.swap_dims(trajectory="rate")["y"].sel(rate=2.0, t=0.0, state="predators") == 2.0


def test_arrays_and_structures_that_are_batched_have_dimensions_of_their_own():
    shifts = np.arange(6.0).reshape(3, 2)
    _, found = solved(params=(1.0, shifts), batched=("shifts",))
    assert found["shifts"].dims == ("trajectory", "shifts_0")
    np.testing.assert_array_equal(found["shifts"], shifts)

    model = odec.dynamics(lambda t, y, arm: -arm["rates"][0].angle * y + arm["rates"][0].joints[1])
    arm = {"rates": (Arm(RATES, np.ones((3, 2))),)}
    _, found = solved(model, params=(arm,), batched=("arm",))
    assert found["arm.rates[0].angle"].dims == ("trajectory",)
    assert found["arm.rates[0].joints"].dims == ("trajectory", "arm.rates[0].joints_0")
    np.testing.assert_array_equal(found["arm.rates[0].angle"], RATES)


def test_lists_that_are_batched_are_coordinates():
    _, found = solved(params=([0.5, 1.0, 2.0],))
    np.testing.assert_array_equal(found["rate"], RATES)


def test_states_that_are_batched_are_a_coordinate():
    y0 = np.arange(6.0).reshape(3, 2)
    _, found = solved(y0=y0, params=(1.0,), batched=("y0",))
    assert found["y0"].dims == ("trajectory", "state") and "rate" not in found.coords
    assert found["y0"].sel(trajectory=2, state="predators") == 5.0


def test_leaves_of_structures_are_variables():
    model = odec.dynamics(lambda t, y: {"base": -y["base"], "arm": Arm(-y["arm"].angle, -y["arm"].joints)})
    y0 = {"arm": Arm(RATES, np.ones((3, 3))), "base": np.ones((3, 2, 2))}
    ens, found = solved(model, y0, (), ("y0",))
    assert {name: v.dims for name, v in found.data_vars.items()} == {
        "arm.angle": ("trajectory", "t"), "arm.joints": ("trajectory", "t", "arm.joints_0"),
        "base": ("trajectory", "t", "base_0", "base_1"),
    }  # fmt: skip
    np.testing.assert_array_equal(found["arm.joints"], ens.ys["arm"].joints)
    np.testing.assert_array_equal(found["y0.arm.angle"], RATES)
    assert found["y0.base"].dims == ("trajectory", "base_0", "base_1")


def test_leaves_without_names_start_as_y0_with_their_place():
    _, found = solved(odec.dynamics(lambda t, y: (-y[0], -y[1])), (RATES, np.ones((3, 2))), (), ("y0",))
    assert set(found.data_vars) == {"y[0]", "y[1]"} and found["y0[1]"].dims == ("trajectory", "y[1]_0")


def test_times_of_each_member_are_a_coordinate_of_two_dimensions():
    times = np.array([[0.0, 0.5, 1.0], [0.1, 0.2, np.nan], [0.3, np.nan, np.nan]])
    _, found = solved(t_eval=times)
    assert found["y"].dims == ("trajectory", "row", "state") and found["t"].dims == ("trajectory", "row")
    np.testing.assert_array_equal(found["t"], times)
    assert np.isnan(found["y"].sel(trajectory=2)[1:]).all()


def test_spans_of_each_member_are_coordinates():
    ends = np.array([1.0, 2.0, 3.0])
    _, found = solved(t_span=(0.0, ends), t_eval=[])
    np.testing.assert_array_equal(found["t_end"], ends)
    np.testing.assert_array_equal(found["t"], ends[:, None])
    assert "t_start" not in found.coords


def test_the_end_alone_is_one_row():
    ens, found = solved(t_eval=[])
    assert dict(found.sizes) == {"trajectory": 3, "t": 1, "state": 2}
    np.testing.assert_array_equal(found["y"][:, 0], ens.y1)


def test_failed_members_are_named_and_their_rows_are_nan():
    _, found = solved(params=(np.array([1.0, np.nan, 2.0]),))
    assert found["status"].values.tolist() == [Status.SUCCESS, Status.NON_FINITE_START, Status.SUCCESS]
    meaning = dict(zip(found["status"].attrs["flag_values"], found["status"].attrs["flag_meanings"].split()))
    assert meaning[Status.NON_FINITE_START] == "NON_FINITE_START"
    assert np.isnan(found["y"][1, -1]).all() and not np.isnan(found["y"].where(found["status"] == 0)[2]).any()
    assert found["t1"].values.tolist() == [1.0, 0.0, 1.0] and found["steps"][1] == 0
    assert found["nfev"].dims == ("trajectory",) and found["nfev"].sum() == found.attrs["nfev"] > 0


def test_reductions_are_variables_over_time_and_the_ends_are_kept():
    ens, found = solved(reduce=("mean", "max"))
    assert {name: v.dims for name, v in found.data_vars.items()} == {
        "y_end": ("trajectory", "state"), "y_mean": ("t", "state"), "y_max": ("t", "state"),
    }  # fmt: skip
    np.testing.assert_array_equal(found["y_mean"], ens.reduced["mean"])
    np.testing.assert_array_equal(found["y_end"], ens.y1)


@pytest.mark.parametrize("t_eval", [[], [1.0]])
def test_reductions_of_one_row_keep_the_dimension_of_time(t_eval):
    _, found = solved(reduce="mean", t_eval=t_eval)
    assert found["y_mean"].dims == ("t", "state") and found["y_mean"].shape == (1, 2)


def test_reductions_of_structures_are_one_for_each_leaf():
    model = odec.dynamics(lambda t, y: (-y[0], -y[1]))
    ens, found = solved(model, (RATES, np.ones((3, 2))), (), ("y0",), reduce="mean")
    np.testing.assert_array_equal(found["y[1]_mean"], ens.reduced["mean"][1])
    assert found["y[0]_mean"].dims == ("t",) and found["y[0]_end"].dims == ("trajectory",)


def test_names_that_meet_stay_apart():
    model = odec.dynamics(lambda t, y, status, trajectory, state: -status * y + trajectory + state)
    _, found = solved(model, params=(RATES, RATES, RATES), batched=("status", "trajectory", "state"))
    for name in ("status_", "trajectory_", "state_"):
        np.testing.assert_array_equal(found[name], RATES)
    assert found["status"].values.tolist() == [0, 0, 0]
    model = odec.dynamics(lambda t, y: {"status": -y["status"], "row": -y["row"]})
    _, found = solved(model, {"status": RATES, "row": RATES}, (), ("y0",))
    assert set(found.data_vars) == {"y['status']", "y['row']"}


def test_attributes_are_numbers_and_text():
    ens, found = solved()
    assert found.attrs["model"] == "decay" and found.attrs["steps"] == ens.stats["steps"]
    assert all(isinstance(v, (int, float, str)) for v in found.attrs.values())


def test_a_file_holds_all_of_it(tmp_path):
    _, found = solved()
    found.to_netcdf(tmp_path / "ensemble.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "ensemble.nc", engine="scipy") as read:
        xarray.testing.assert_equal(read.load(), found)
        assert read["status"].attrs["flag_meanings"] == found["status"].attrs["flag_meanings"]
