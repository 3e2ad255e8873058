"""odec.solve as users meet it: structures, dtypes, parameters, Systems, and inputs left alone."""

import copy
import dataclasses
from typing import NamedTuple

import numpy as np
import pytest

import odec
from odec import Status


@odec.dynamics
def lorenz(t, y, sigma=10.0, rho=28.0, beta=8 / 3):
    x, v, z = y
    return [sigma * (v - x), x * (rho - z) - v, x * v - beta * z]


@odec.dynamics
def decay(t, y, rate=1.0):
    return -rate * y


class Body(NamedTuple):
    place: np.ndarray
    speed: np.ndarray


@dataclasses.dataclass
class Rod:
    length: float
    gravity: float = 9.81


# ---- states of any form ------------------------------------------------------------------------------------


def test_a_number_as_state():
    sol = odec.solve(decay, (0.0, 1.0), 2.0, t_eval=[0.0, 0.5, 1.0])
    assert sol.ys.shape == (3,) and np.shape(sol.y1) == ()
    assert sol.ys == pytest.approx(2.0 * np.exp(-sol.ts), rel=1e-6)
    assert float(sol.y1) == sol.ys[-1]


def test_a_matrix_as_state():
    a = np.array([[0.0, 1.0], [-1.0, 0.0]])
    sol = odec.solve(odec.dynamics(lambda t, y: a @ y), (0.0, np.pi / 2), np.eye(2), rtol=1e-9, atol=1e-12)
    assert sol.ys.shape == (len(sol.ts), 2, 2) and sol.y1 == pytest.approx(a, abs=1e-8)
    per_entry = np.full((2, 2), 1e-9)
    assert odec.solve(odec.dynamics(lambda t, y: a @ y), (0.0, 1.0), np.eye(2), atol=per_entry).success


def test_a_dict_with_a_dataclass_of_parameters():
    @odec.dynamics
    def pendulum(t, y, rod):
        return {"angle": y["speed"], "speed": -rod.gravity / rod.length * np.sin(y["angle"])}

    y0 = {"angle": 0.1, "speed": 0.0}
    sol = odec.solve(pendulum, (0.0, 5.0), y0, (Rod(2.0),), rtol=1e-8, t_eval=np.linspace(0.0, 5.0, 9))
    assert set(sol.ys) == {"angle", "speed"} and sol.ys["angle"].shape == (9,)
    assert sol.y1["angle"] == sol.ys["angle"][-1]
    swapped = odec.solve(pendulum, (0.0, 5.0), {"speed": 0.0, "angle": 0.1}, (Rod(2.0),), rtol=1e-8, t_eval=sol.ts)
    assert swapped.ys["angle"] == pytest.approx(sol.ys["angle"], rel=1e-9)
    assert odec.solve(pendulum, (0.0, 1.0), y0, (Rod(2.0),), atol={"angle": 1e-9, "speed": 1e-7}).success


def test_nested_named_tuples_and_lists():
    @odec.dynamics
    def fall(t, y, g):
        body, [count] = y
        return Body(body.speed, g - 0.1 * body.speed), [1.0 + 0.0 * count]

    y0 = (Body(np.zeros(2), np.array([1.0, 0.0])), [np.zeros(3)])
    sol = odec.solve(fall, (0.0, 1.0), y0, (np.array([0.0, -9.81]),))
    body, [count] = sol.ys
    assert isinstance(body, Body) and body.place.shape == (len(sol.ts), 2) and count.shape == (len(sol.ts), 3)
    assert isinstance(sol.y1[0], Body) and sol.y1[1][0] == pytest.approx([1.0] * 3)
    assert sol.y1[0].speed[0] == pytest.approx(np.exp(-0.1), rel=1e-6)


# ---- dtypes ------------------------------------------------------------------------------------------------


def test_float32_state_with_float64_time():
    y0 = np.ones(3, np.float32)
    sol = odec.solve(lorenz, (0.0, 2.0), y0, rtol=1e-4, atol=1e-4)
    assert sol.ys.dtype == sol.y1.dtype == np.float32 and sol.ts.dtype == np.float64
    double = odec.solve(lorenz, (0.0, 2.0), [1.0, 1.0, 1.0], rtol=1e-9)
    assert sol.y1 == pytest.approx(double.y1, rel=0.02)
    assert odec.solve(lorenz, (0.0, 1.0), [1.0, 1.0, 1.0], dtype=np.float32).ys.dtype == np.float32
    assert odec.solve(lorenz, (0.0, 1.0), y0, dtype=np.float64).ys.dtype == np.float64


def test_parts_of_a_float32_model_of_another_dtype():
    @odec.dynamics
    def model(t, y):
        return {"x": -y["x"].astype(np.float64), "clock": np.array([0.3, 1.0]), "on": y["x"] > 5.0}

    y0 = {"x": np.float32(1.0), "clock": np.zeros(2, np.float32), "on": np.float32(0.0)}
    sol = odec.solve(model, (0.0, 2.0), y0, rtol=1e-4, atol=1e-4)
    assert sol.y1["clock"] == pytest.approx([0.6, 2.0], rel=1e-6) and sol.y1["clock"].dtype == np.float32
    assert sol.y1["on"] == 0.0


def test_float32_steps_that_float32_time_could_not_take():
    """At t = 1e6 the spacing of float32 is 1/16."""
    clock = odec.dynamics(lambda t, y: [np.cos(t - 1e6) + 0 * y[0], 1.0])
    sol = odec.solve(clock, (1e6, 1e6 + 1.0), np.zeros(2, np.float32), max_step=1e-2, t_eval=[])
    assert sol.stats["steps"] >= 100 and sol.y1[1] == pytest.approx(1.0, rel=1e-5)


def test_float32_tolerances_beyond_its_digits_end_with_a_status():
    sol = odec.solve(
        decay, (0.0, 1.0), np.array([1.0], np.float32), rtol=1e-12, atol=1e-20, throw=False, max_steps=5000
    )
    assert sol.status in (Status.SUCCESS, Status.STEP_LIMIT, Status.STEP_UNDERFLOW)
    assert np.isfinite(sol.ys).all() and (sol.success or "tolerances" in sol.message or "max_steps" in sol.message)


def test_integers_and_numpy_numbers_are_fine():
    for y0 in ([1, 1, 1], np.array([1, 1, 1]), np.ones(3, np.float16), [np.float32(1), 1, 1.0]):
        sol = odec.solve(lorenz, (np.int64(0), 1), y0, (10, 28, np.float64(8 / 3)), max_steps=np.int64(1000))
        assert sol.ys.dtype == np.float64 and sol.ys.shape[1:] == (3,)


# ---- parameters ---------------------------------------------------------------------------------------------


def test_parameters_by_position_name_and_default():
    ends = [
        odec.solve(lorenz, (0.0, 1.0), [1.0, 1.0, 1.0], params).y1
        for params in (
            (),
            {},
            (10.0,),
            [10.0, 28.0],
            {"rho": 28.0},
            {"beta": 8 / 3, "sigma": 10.0},
            (10.0, 28.0, 8 / 3),
        )
    ]
    assert all((end == ends[0]).all() for end in ends)
    assert (odec.solve(lorenz, (0.0, 1.0), [1.0, 1.0, 1.0], {"rho": 20.0}).y1 != ends[0]).any()


def test_no_parameters_and_closures():
    w = np.array([[0.0, 1.0], [-1.0, 0.0]])
    sol = odec.solve(odec.dynamics(lambda t, y: w @ y), (0.0, 1.0), [1.0, 0.0], rtol=1e-9)
    assert sol.y1 == pytest.approx([np.cos(1.0), -np.sin(1.0)], abs=1e-7)


def test_starred_and_keyword_only_parameters():
    @odec.dynamics
    def starred(t, y, *rates):
        return [-r * v for r, v in zip(rates, y)]

    @odec.dynamics
    def named(t, y, *, rate=2.0):
        return -rate * y

    assert odec.solve(starred, (0.0, 1.0), [1.0, 1.0], (1.0, 2.0)).y1 == pytest.approx(np.exp([-1.0, -2.0]), rel=1e-5)
    assert odec.solve(named, (0.0, 1.0), [1.0]).y1 == pytest.approx(np.exp([-2.0]), rel=1e-5)
    assert odec.solve(named, (0.0, 1.0), [1.0], {"rate": 1.0}).y1 == pytest.approx(np.exp([-1.0]), rel=1e-5)


def test_array_parameters():
    @odec.dynamics
    def linear(t, y, a, b):
        return a @ y + b

    a, b = np.array([[-1.0, 0.5], [0.0, -2.0]]), np.array([1.0, 2.0])
    sol = odec.solve(linear, (0.0, 40.0), [0.0, 0.0], (a, b), t_eval=[])
    assert sol.y1 == pytest.approx(np.linalg.solve(a, -b), rel=1e-6)


# ---- Systems -------------------------------------------------------------------------------------------------


def test_a_system_solves_as_its_model():
    system = lorenz.bind([1.0, 1.0, 1.0])
    params = (10.0, 28.0, 8 / 3)
    model = odec.solve(lorenz, (0.0, 2.0), [1.0, 1.0, 1.0], params)
    bound = odec.solve(system, (0.0, 2.0), [1.0, 1.0, 1.0], params)
    named = odec.solve(system, (0.0, 2.0), [1.0, 1.0, 1.0], {"beta": 8 / 3, "rho": 28.0, "sigma": 10.0})
    assert model.ys.tobytes() == bound.ys.tobytes() == named.ys.tobytes()


def test_a_loaded_system_solves_with_the_same_bits(tmp_path):
    path = tmp_path / "lorenz.json"
    lorenz.bind([1.0, 1.0, 1.0]).save(path)
    loaded = odec.load(path)
    params = (10.0, 28.0, 8 / 3)
    one, two = (odec.solve(m, (0.0, 2.0), [1.0, 1.0, 1.0], params) for m in (lorenz, loaded))
    assert one.ts.tobytes() == two.ts.tobytes() and one.ys.tobytes() == two.ys.tobytes()


def test_binding_is_cached_and_only_shapes_count():
    assert lorenz.bind([1.0, 1.0, 1.0]) is lorenz.bind(np.zeros(3), (1.0, 2.0, 3.0))
    assert lorenz.bind([1.0, 1.0, 1.0]) is not lorenz.bind(np.zeros(3, np.float32))


# ---- inputs and results -----------------------------------------------------------------------------------------


def test_inputs_are_neither_changed_nor_kept():
    y0, t_eval, rtol, atol = np.ones(3), np.linspace(0.0, 1.0, 5), np.full(3, 1e-7), np.full(3, 1e-9)
    params = {"sigma": np.array(10.0), "rho": np.array(28.0)}
    before = copy.deepcopy((y0, t_eval, rtol, atol, params))
    sol = odec.solve(lorenz, (0.0, 1.0), y0, params, t_eval=t_eval, rtol=rtol, atol=atol)
    for now, then in zip((y0, t_eval, rtol, atol, *params.values()), (*before[:4], *before[4].values())):
        assert (now == then).all()
    results = sol.ts, sol.ys, sol.y1
    inputs = y0, t_eval, rtol, atol, *params.values()
    assert not any(np.may_share_memory(r, i) for r in results for i in inputs)
    kept = sol.ys.copy()
    y0 += 1.0
    t_eval += 1.0
    assert (sol.ys == kept).all() and sol.ts[0] == 0.0


@pytest.mark.parametrize("t_eval", [None, [], [0.0, 0.5, 1.0], [1.0]])
def test_results_are_writable_and_independent(t_eval):
    one = odec.solve(lorenz, (0.0, 1.0), np.ones(3), t_eval=t_eval)
    two = odec.solve(lorenz, (0.0, 1.0), np.ones(3), t_eval=t_eval)
    kept = one.ts.copy(), one.ys.copy(), one.y1.copy()
    for array in (two.ts, two.ys, two.y1):
        array[...] = 7.0
    odec.solve(lorenz, (0.0, 1.0), np.zeros(3), t_eval=t_eval)
    assert all((a == b).all() for a, b in zip((one.ts, one.ys, one.y1), kept))
    assert not np.may_share_memory(one.ys, one.y1)


def test_read_only_and_strided_inputs():
    block = np.ones((3, 4))
    y0 = block[:, 1]
    y0.setflags(write=False)
    times = np.linspace(0.0, 1.0, 9)[::2]
    times.setflags(write=False)
    sol = odec.solve(lorenz, (0.0, 1.0), y0, t_eval=times)
    assert sol.ts.tolist() == times.tolist() and (block == 1.0).all()
    assert (sol.ys == odec.solve(lorenz, (0.0, 1.0), np.ones(3), t_eval=times.copy()).ys).all()


def test_results_of_systems_are_new_arrays():
    system = lorenz.bind(np.ones(3))
    y = np.ones(3)
    first = system.rhs(0.0, y, 10.0, 28.0, 8 / 3)
    first[:] = 9.0
    assert (y == 1.0).all() and (system.rhs(0.0, y, 10.0, 28.0, 8 / 3) != 9.0).any()


# ---- Solution ----------------------------------------------------------------------------------------------------


def test_solution_says_what_it_is():
    sol = odec.solve(lorenz, (0.0, 1.0), [1.0, 1.0, 1.0])
    assert sol.success and sol.status is Status.SUCCESS and "reached the end" in sol.message
    assert "lorenz" in repr(sol) and f"{len(sol.ts)} rows" in repr(sol)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sol.ts = None


def test_plot_draws_every_component_by_name():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    model = odec.dynamics(lorenz.function, state=("x", "y", "z"))
    try:
        axes = odec.solve(model, (0.0, 1.0), [1.0, 1.0, 1.0]).plot()
        assert [line.get_label() for line in axes.lines] == ["x", "y", "z"]
        own = plt.figure().gca()
        assert odec.solve(decay, (0.0, 1.0), 2.0).plot(ax=own, color="k") is own and len(own.lines) == 1
        structured = odec.dynamics(lambda t, y: {"a": -y["a"], "b": y["a"]})
        labels = [
            line.get_label()
            for line in odec.solve(structured, (0.0, 1.0), {"a": 1.0, "b": 0.0}).plot(plt.figure().gca()).lines
        ]
        assert labels == ["y['a']", "y['b']"]
    finally:
        plt.close("all")


def test_named_components_are_named_in_messages():
    model = odec.dynamics(lambda t, y: [y[0] ** 2, 1.0 + 0 * y[1]], state=("hot", "clock"))
    assert "hot" in odec.solve(model, (0.0, 2.0), [1.0, 0.0], throw=False).message
    nested = odec.dynamics(lambda t, y: {"a": -y["a"], "b": y["b"] ** 2})
    message = odec.solve(nested, (0.0, 2.0), {"a": 1.0, "b": np.array([0.1, 1.0])}, throw=False).message
    assert "y['b'][1]" in message


def test_methods_are_listed_and_usable():
    names = [m.name for m in odec.methods()]
    assert {"euler", "rk4", "bs3", "dopri5", "tsit5", "dop853", "vern7", "vern9"} <= set(names)
    for record in odec.methods():
        if not isinstance(record, odec.ButcherTableau):
            continue
        how = {} if record.adaptive else {"first_step": 0.01}
        by_record = odec.solve(decay, (0.0, 1.0), [1.0], method=record, **how)
        by_name = odec.solve(decay, (0.0, 1.0), [1.0], method=record.name, **how)
        assert by_record.ys.tobytes() == by_name.ys.tobytes()
        assert by_name.y1 == pytest.approx([np.exp(-1.0)], rel=1e-2 if record.order == 1 else 1e-4)
    auto = odec.solve(decay, (0.0, 1.0), [1.0])
    assert auto.ys.tobytes() == odec.solve(decay, (0.0, 1.0), [1.0], method="tsit5").ys.tobytes()


def test_the_first_step_is_no_shorter_than_min_step():
    sol = odec.solve(decay, (0.0, 10.0), [1.0], min_step=0.1)
    assert sol.ts[1] == pytest.approx(0.1) and sol.y1 == pytest.approx([np.exp(-10.0)], abs=1e-6)


def test_progress_shows_the_name_and_the_time_reached(capsys):
    odec.solve(decay, (0.0, 10.0), [1.0], progress=True)
    assert "decay, t = 10 100%" in capsys.readouterr().err


def test_a_tuple_as_state_of_a_model_of_arrays_gets_a_cure():
    with pytest.raises(odec.ShapeError, match=r"returned a number, but y is a tuple.* give y0 as a list or array"):
        odec.solve(odec.dynamics(lambda t, y: -y[0]), (0.0, 1.0), (1.0,))


def test_events_take_parameters_and_bound_values():
    level = 0.25
    takes = (
        lambda t, y, rate: y[0] - 0.25 * rate,
        lambda t, y, any_name: y[0] - 0.25 * any_name,
        lambda t, y, *, level=level: y[0] - level,
    )
    for function in takes:
        sol = odec.solve(decay, (0.0, 2.0), [1.0], events=function)
        assert sol.t_events[0] == pytest.approx([np.log(4.0)], abs=1e-5)
    with pytest.raises(odec.ArgumentError, match=r"takes 'level', which decay has not.*lambda t, y, \*, level="):
        odec.solve(decay, (0.0, 2.0), [1.0], events=lambda t, y, level=level: y[0] - level)


def test_the_names_of_the_package_are_functions_whatever_was_imported_first():
    assert callable(odec.solve) and callable(odec.dynamics) and set(dir(odec)) >= set(odec.__all__)
    for name in odec.__all__:
        assert getattr(odec, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'sovle'"):
        _ = odec.sovle
