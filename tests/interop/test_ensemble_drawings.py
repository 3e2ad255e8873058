"""Drawings of ensembles: what they show, and what cannot be drawn."""

import builtins
import dataclasses
import warnings

import matplotlib
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import odec
from odec.ensemble_solution import EnsembleSolution
from odec.errors import ArgumentError, Status
from odec.graph.structure import structure_of
from odec.interop.matplotlib_ensemble import bins, quantiles
from odec.interop.on_host import on_host

TIMES = np.linspace(0.0, 1.0, 11)


def ensemble_of(rows, times=TIMES, failed=None, **fields):
    """An EnsembleSolution with rows (N, m, n); failed : {member: rows that it reached}"""
    rows = np.array(rows, float)
    size, ends, status = len(rows), rows[:, -1].copy(), np.zeros(len(rows), np.int8)
    for i, reached in (failed or {}).items():
        rows[i, reached:], ends[i], status[i] = np.nan, np.nan, Status.NON_FINITE
    count, structure = np.ones(size, np.int32), structure_of(rows[0, 0], "y")
    t1 = np.full(size, np.nanmax(times))
    return EnsembleSolution(
        np.asarray(times), t1, status, count, 0 * count, 7 * count, rows, ends, {}, structure,
        **{"state": None, **fields},
    )  # fmt: skip


def straight(size, components=2, **fields):
    """Member i of component k is i + 100 k all the time."""
    values = np.arange(size, dtype=float)[:, None, None] + 100.0 * np.arange(components)
    return ensemble_of(np.broadcast_to(values, (size, len(TIMES), components)), **fields)


def labels(ax):
    return ax.get_legend_handles_labels()[1]


def band_edges(band):
    vertices = band.get_paths()[0].vertices[:, 1]
    return vertices.min(), vertices.max()


# ---- quantiles and bins


@given(hnp.arrays(float, (7, 3), elements=st.floats(-1e6, 1e6)), st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_quantiles_are_those_of_numpy(rows, shares):
    np.testing.assert_allclose(quantiles(rows, shares), np.quantile(rows, shares, axis=0), rtol=1e-12, atol=1e-8)


def test_quantiles_are_of_the_members_that_got_so_far():
    rows = np.array([[1.0, 1.0, np.nan], [2.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    np.testing.assert_array_equal(quantiles(rows, [0.0, 0.5, 1.0]), [[1, 1, np.nan], [2, 3, np.nan], [3, 5, np.nan]])


@given(hnp.arrays(float, st.integers(1, 50), elements=st.floats(-1e9, 1e9)))
@example(np.array([1e-301, 1.0, 2e7, *[0.0] * 6]))
def test_bins_hold_all_values_and_can_be_seen(values):
    edges = bins(values)
    assert 2 <= len(edges) <= 101 and (np.diff(edges) > 0).all()
    assert np.histogram(values, edges)[0].sum() == len(values)


# ---- what is shown


def test_a_fan_has_the_median_and_two_bands_for_each_component():
    axes = straight(101).plot()
    assert len(axes) == 2 and [ax.get_ylabel() for ax in axes] == ["y[0]", "y[1]"]
    for k, ax in enumerate(axes):
        (median,) = ax.lines
        np.testing.assert_array_equal(median.get_ydata(), np.full(len(TIMES), 50.0 + 100 * k))
        assert [band_edges(band) for band in ax.collections] == [
            (25.0 + 100 * k, 75.0 + 100 * k), (5.0 + 100 * k, 95.0 + 100 * k),
        ]  # fmt: skip
    assert labels(axes[0]) == ["median", "50 %", "90 % of members"]
    assert axes[0].get_title(loc="left") == "101 members" and axes[1].get_xlabel() == "t"


def test_a_fan_says_how_many_failed_and_goes_on_without_them():
    ax = straight(101, 1, failed={0: 4, 1: 0}).plot()
    assert ax.get_title(loc="left") == "101 members, 2 failed"
    median = ax.lines[0].get_ydata()
    assert median[0] == 50.5 and median[-1] == 51.0


def test_a_fan_of_members_that_all_failed_at_the_start_is_empty():
    failed = dict.fromkeys(range(30), 0)
    assert np.isnan(straight(30, 1, failed=failed).plot(kind="fan").lines[0].get_ydata()).all()


def test_one_component_takes_the_current_axes():
    _, ax = plt.subplots()
    assert straight(30).plot(components="y[1]") is ax and ax.get_legend().get_title().get_text() == "30 members"


def test_several_components_on_one_axes_are_told_apart_by_name():
    _, ax = plt.subplots()
    assert straight(30, state=("prey", "predators")).plot(ax) is ax
    assert labels(ax) == ["prey", "predators"]
    assert len({line.get_color() for line in ax.lines}) == 2


def test_each_component_can_have_its_axes():
    _, axes = plt.subplots(1, 2)
    found = straight(30).plot(axes)
    assert list(found) == list(axes) and all(len(ax.lines) == 1 for ax in axes)
    with pytest.raises(ArgumentError, match="ax has 2 axes, the drawing 3 components; give one, or one for each"):
        straight(30, 3).plot(axes)


def test_axes_in_use_keep_their_figure():
    figure, ax = plt.subplots()
    axes = straight(30).plot()
    assert axes[0].figure is not figure and not ax.lines


def test_of_many_components_six_are_drawn_and_all_that_are_named():
    axes = straight(30, 28).plot()
    assert [ax.get_ylabel() for ax in axes] == ["y[0]", "y[5]", "y[11]", "y[16]", "y[22]", "y[27]"]
    assert axes[0].get_title(loc="left") == "30 members; 6 of 28 components"
    assert len(straight(30, 28).plot(components=range(8))) == 8


def test_few_members_are_drawn_one_by_one():
    ax = straight(5, 1).plot()
    assert len(ax.lines) == 5 and not ax.collections


def test_of_many_members_200_are_drawn():
    ax = straight(1000, 1).plot(kind="members")
    assert len(ax.lines) == 200 and ax.get_title(loc="left") == "200 of 1,000 members"
    assert ax.lines[0].get_ydata()[0] == 0.0 and ax.lines[-1].get_ydata()[0] == 999.0


def test_members_that_differ_in_one_number_are_coloured_by_it():
    ax = straight(5, 1, batched={"rho": np.linspace(0.0, 21.0, 5)}).plot()
    bar = ax.figure.axes[-1]
    assert bar.get_ylabel() == "rho" and bar.get_ylim() == (0.0, 21.0)
    assert len({line.get_color() for line in ax.lines}) == 5
    plain = straight(5, 1, batched={"rho": np.linspace(0.0, 21.0, 5)}).plot(plt.figure().gca(), color="red")
    assert {line.get_color() for line in plain.lines} == {"red"} and len(plain.figure.axes) == 1


def test_a_cross_stands_where_a_member_failed():
    ax = straight(5, 1, failed={3: 4, 4: 0}).plot()
    crosses = ax.lines[-1]
    assert crosses.get_marker() == "x" and labels(ax) == ["failed"]
    assert (list(crosses.get_xdata()), list(crosses.get_ydata())) == ([TIMES[3]], [3.0])


def test_members_with_times_of_their_own_are_lines():
    times = np.linspace(0.0, np.arange(1.0, 31.0), 11, axis=1)
    ens = straight(30, 1, times=times)
    ax = ens.plot()
    assert len(ax.lines) == 30 and ax.lines[9].get_xdata()[-1] == 10.0
    with pytest.raises(ArgumentError, match="times of their own; solve with the same t_eval for all, or draw kind='m"):
        ens.plot(kind="fan")


def test_times_given_to_each_member_but_all_the_same_make_a_fan():
    ens = straight(30, 1, times=np.broadcast_to(TIMES, (30, 11)))
    np.testing.assert_array_equal(ens.plot().lines[0].get_xdata(), TIMES)


def test_ends_are_a_histogram_of_the_members_that_got_there():
    axes = straight(101, failed={0: 3, 1: 4}).plot(kind="end")
    assert [ax.get_xlabel() for ax in axes] == ["y[0] at t = 1", "y[1] at t = 1"]
    assert [sum(bar.get_height() for bar in ax.patches) for ax in axes] == [99, 99]
    assert axes[0].get_title(loc="right") == "median 51" and axes[0].get_ylabel() == "members"
    assert axes[0].figure.get_suptitle() == "101 members, 2 failed"


def test_ends_that_are_the_same_but_for_rounding_are_one_bar():
    values = np.full((40, 1, 1), 1.0) + np.spacing(1.0) * np.arange(40)[:, None, None]
    ax = ensemble_of(values, [1.0]).plot()
    assert sorted(bar.get_height() for bar in ax.patches)[-2:] == [0, 40]


def test_an_ensemble_that_kept_the_end_only_draws_the_end():
    assert ensemble_of(np.arange(30.0).reshape(30, 1, 1), [2.0]).plot().get_xlabel() == "y[0] at t = 2"


def test_reductions_are_bands_and_lines():
    def reduced(**found):
        found = {name: np.full((len(TIMES), 1), value) for name, value in found.items()}
        ens = straight(30, 1, reduced=found)
        object.__setattr__(ens, "flat_rows", None)
        return ens

    ax = reduced(mean=4.0, std=1.0, min=0.0, max=9.0).plot()
    assert [band_edges(band) for band in ax.collections] == [(0.0, 9.0), (3.0, 5.0)]
    assert labels(ax) == ["least to largest", "one standard deviation", "mean"]
    ax = reduced(sum=4.0, min=1.0).plot(plt.figure().gca())
    assert labels(ax) == ["sum", "min"] and not ax.collections
    with pytest.raises(ArgumentError, match="the rows were only reduced, to mean; solve without reduce, or draw"):
        reduced(mean=1.0).plot(kind="fan")


def test_lines_take_the_options_of_matplotlib():
    ax = straight(30, 1).plot(color="red", linewidth=5)
    assert ax.lines[0].get_color() == "red" and ax.lines[0].get_linewidth() == 5
    np.testing.assert_allclose(ax.collections[0].get_facecolor()[0, :3], [1, 0, 0])
    assert len(straight(30, 1).plot(plt.figure().gca(), kind="end", bins=4).patches) == 4


# ---- what cannot be drawn


@pytest.mark.parametrize(
    "how, said",
    [
        ({"kind": "spaghetti"}, "kind is 'spaghetti'; it is one of 'fan', 'members', 'reduced', 'end', or 'auto'"),
        ({"kind": "reduced"}, r"nothing was reduced; solve with reduce=\('mean', 'std'\), or draw kind='fan'"),
        ({"components": "z"}, "no component is called 'z'"),
        ({"components": []}, "components is empty"),
    ],
)
def test_what_is_not_there_is_refused(how, said):
    with pytest.raises(ArgumentError, match=said):
        straight(30).plot(**how)


@pytest.mark.parametrize("kind", ["fan", "members", "reduced"])
def test_a_drawing_over_time_needs_times(kind):
    with pytest.raises(ArgumentError, match="one time of each member was kept; solve with t_eval=times, or draw kind="):
        ensemble_of(np.ones((30, 1, 1)), [1.0]).plot(kind=kind)


def test_ends_of_members_that_all_failed_are_refused():
    with pytest.raises(ArgumentError, match=r"no member reached its end with a finite y\[0\]; see the .* `failures`"):
        straight(3, 1, failed=dict.fromkeys(range(3), 2)).plot(kind="end")


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError
        return real(name, *rest)

    ens = straight(30)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"odec\[plot\]"):
        ens.plot()


# ---- of a solve


def test_a_solved_ensemble_is_drawn_in_every_way(tmp_path):
    @odec.dynamics(state=("x", "v"))
    def oscillator(t, y, rate):
        return [y[1], -rate * y[0]]

    rates = np.linspace(1.0, 4.0, 25)
    ens = odec.solve_ensemble(oscillator, (0.0, 1.0), np.array([1.0, 0.0]), (rates,), batched="rate", t_eval=TIMES)
    for kind in ("auto", "fan", "members", "end"):
        ax = ens.plot(plt.figure().gca(), kind=kind, components="x")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ax.figure.savefig(tmp_path / f"{kind}.png")
    np.testing.assert_allclose(ens.plot(plt.figure().gca(), components="x").lines[0].get_ydata()[-1],
                               np.median(np.cos(np.sqrt(rates))), atol=1e-4)  # fmt: skip
    reduced = odec.solve_ensemble(
        oscillator, (0.0, 1.0), np.array([1.0, 0.0]), (rates,), batched="rate", t_eval=TIMES, reduce=("mean", "std")
    )
    assert labels(reduced.plot()[0]) == ["one standard deviation", "mean"]


def test_rows_on_a_cluster_are_computed_as_they_are_drawn():
    da = pytest.importorskip("dask.array")
    here = straight(30)
    rows = da.from_array(here.flat_rows, chunks=(7, 11, 2))
    for kind in ("fan", "members"):
        there = dataclasses.replace(here, flat_rows=rows).plot(kind=kind)
        for a, b in zip(here.plot(kind=kind), there, strict=True):
            np.testing.assert_array_equal([l.get_ydata() for l in a.lines], [l.get_ydata() for l in b.lines])


class OnDevice:
    """An array that lies elsewhere, as those of Numba and CuPy do."""

    __cuda_array_interface__ = {}

    def __init__(self, array):
        self.array = array

    def copy_to_host(self):
        return self.array


def test_states_on_a_gpu_are_brought_here_with_nan_where_members_failed():
    failed = straight(30, failed={3: 4, 7: 0})
    t1 = failed.t1.copy()
    t1[[3, 7]] = TIMES[3], -1.0
    rows, ends = np.nan_to_num(failed.flat_rows, nan=9.0), np.nan_to_num(failed.flat_y1, nan=9.0)
    for times in (TIMES, np.broadcast_to(TIMES, (30, 11))):
        far = dataclasses.replace(failed, ts=times, t1=t1, flat_rows=OnDevice(rows), flat_y1=OnDevice(ends))
        np.testing.assert_array_equal(on_host(far).flat_rows, failed.flat_rows)
        np.testing.assert_array_equal(on_host(far).flat_y1, failed.flat_y1)
        np.testing.assert_array_equal(far.plot()[0].lines[0].get_ydata(), failed.plot()[0].lines[0].get_ydata())
    assert on_host(failed) is failed
