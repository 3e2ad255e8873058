"""Solutions as users look at them: notebook tables, drawings, their own arrays."""

import dataclasses

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import odec
from odec.errors import ArgumentError, Status
from odec.graph.structure import structure_of
from odec.solution import Solution


def solution_of(rows, times=None, structure=None):
    """A Solution with the rows (m, n) at times 0, 1, ..."""
    rows = np.asarray(rows, float)
    times = np.arange(len(rows), dtype=float) if times is None else np.asarray(times, float)
    structure = structure or structure_of(rows[0], "y")
    return Solution(
        times, structure.unflatten(rows, (len(rows),)), structure.unflatten(rows[-1]), Status.SUCCESS, "the end",
        {"steps": 1234, "solve_seconds": 0.0012345}, "model", None, rows, structure,
    )  # fmt: skip


@odec.dynamics(state=("height", "speed"))
def fall(t, y):
    return [y[1], -2.0]


def fallen_ball(direction=1.0, **how):
    """Height 1 - t^2 and speed -2 t, which a reset at t = 1 and height 0 starts anew; the second event never comes."""
    ground = odec.Event(lambda t, y: y[0], reset=lambda t, y: np.array([1.0, 0.0]))
    sky = odec.Event(lambda t, y: y[0] - 9.0)
    return odec.solve(fall, (0.0, 1.75 * direction), [1.0, 0.0], events=[ground, sky], **how)


# ---- drawings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_smooth_curve_keeps_jumps_as_jumps(direction):
    line = fallen_ball(direction, dense_output=True, t_eval=[]).plot(components="height").lines[0]
    t, height = direction * line.get_xdata(), line.get_ydata()
    assert (t[0], t[-1]) == (0.0, 1.75) and len(t) > 500 and (np.diff(t) > 0).all()
    (jump,) = np.flatnonzero(np.diff(height) > 0.5)
    assert t[jump] == pytest.approx(1.0, abs=1e-9) and t[jump + 1] - t[jump] < 1e-15
    assert height[jump] == pytest.approx(0.0, abs=1e-9) and height[jump + 1] == pytest.approx(1.0, abs=1e-9)
    np.testing.assert_allclose(height, 1 - (t - (np.arange(len(t)) > jump)) ** 2, atol=1e-8)


def test_rows_on_both_sides_of_a_reset_are_joined():
    ball = fallen_ball()
    line = ball.plot(components=0).lines[0]
    np.testing.assert_array_equal(line.get_xdata(), ball.ts)
    height = line.get_ydata()
    (jump,) = np.flatnonzero(np.diff(height) > 0.5)
    assert ball.ts[jump] == ball.ts[jump + 1] and height[jump : jump + 2] == pytest.approx([0.0, 1.0], abs=1e-9)


def test_short_steps_get_points_of_their_own():
    solution = odec.solve(fall, (0.0, 100.0), [1.0, 0.0], first_step=1e-6, dense_output=True)
    times = solution.plot().lines[0].get_xdata()
    assert np.sum(times <= solution.ts[1]) > 50


def test_events_that_came_are_marked():
    axes = fallen_ball(dense_output=True).plot()
    marks = axes.lines[-1]
    assert marks.get_label() == "event 0" and marks.get_xdata() == pytest.approx([1, 1])
    assert marks.get_ydata() == pytest.approx([0, -2])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["height", "speed", "event 0"]


def test_events_of_structured_states_are_marked():
    structure = structure_of({"q": 1.0, "v": np.zeros(2)}, "y")
    solution = dataclasses.replace(
        solution_of(np.arange(6.0).reshape(2, 3), structure=structure),
        t_events=[np.array([0.25, 0.5])],
        y_events=[{"q": np.array([1.0, 2.0]), "v": np.array([[3.0, 4.0], [5.0, 6.0]])}],
    )  # fmt: skip
    marks = solution.plot(phase=("y['q']", "y['v'][1]")).lines[-1]
    assert (marks.get_xdata().tolist(), marks.get_ydata().tolist()) == ([1, 2], [4, 6])


def test_phase_portraits_name_their_axes():
    ball = fallen_ball()
    axes = ball.plot(phase=("height", "speed"))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("height", "speed")
    assert axes.lines[-1].get_ydata() == pytest.approx([-2])
    plain = dataclasses.replace(ball, t_events=[np.empty(0)], y_events=[np.empty((0, 2))])
    assert plain.plot(plt.figure().gca(), phase=(1, 0)).get_legend() is None


def test_three_components_get_three_axes():
    solution = solution_of(np.arange(12.0).reshape(4, 3))
    axes = solution.plot(phase=(0, 1, 2))
    assert axes.name == "3d" and axes.get_zlabel() == "y[2]"
    assert solution.plot(phase=(2, 1, 0)) is axes
    assert solution.plot().name == "rectilinear"
    with pytest.raises(ArgumentError, match="projection='3d'"):
        solution.plot(plt.figure().gca(), phase=(0, 1, 2))
    with pytest.raises(ArgumentError, match="3 dimensions, the drawing 2"):
        solution.plot(axes)


def test_many_components_get_a_legend_that_fits():
    axes = solution_of(np.ones((3, 40)) * np.arange(40)).plot()
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(axes.lines) == 40 and len(texts) == 10 and (texts[0], texts[-1]) == ("y[0]", "y[39]")
    assert len({line.get_color() for line in axes.lines}) == 40
    assert {line.get_color() for line in solution_of(np.ones((3, 40))).plot(plt.figure().gca(), color="k").lines} == {
        "k"
    }


def test_one_row_is_a_point():
    assert solution_of([[1.0, 2.0]]).plot().lines[0].get_marker() == "o"
    assert solution_of([[1.0, 2.0]]).plot(marker="x").lines[-1].get_marker() == "x"


@pytest.mark.parametrize(
    "how, words",
    [
        ({"components": "hight"}, ["'hight'", "did you mean 'height'", "height, speed"]),
        ({"components": 2}, ["2 is no component", "0 to 1"]),
        ({"components": [0.5]}, ["0.5"]),
        ({"components": []}, ["empty"]),
        ({"phase": ("height",)}, ["two or three"]),
        ({"phase": "height"}, ["two or three"]),
        ({"phase": ("height", "speed"), "components": 0}, ["leave one out"]),
    ],
)
def test_components_that_are_not_there_get_a_sentence(how, words):
    with pytest.raises(ArgumentError) as raised:
        fallen_ball().plot(**how)
    for word in words:
        assert word in str(raised.value)


# ---- notebooks ----------------------------------------------------------------------------------------------


def test_the_notebook_table_is_small_and_escaped():
    solution = dataclasses.replace(solution_of(np.ones((5, 3)) / 3), name="<b>model</b>", state=("x", "<i>", "z"))
    html = solution._repr_html_()
    assert "<b>" not in html and "<i>" not in html and "&lt;b&gt;model" in html
    assert "5 rows, t = 0 to 4" in html and "0.33333333" in html and "1,234" in html
    assert "http" not in html and "<script" not in html


def test_the_notebook_table_shows_the_first_of_many():
    html = solution_of(np.ones((1, 1000)))._repr_html_()
    assert "y[11]" in html and "y[12]" not in html and "988 more" in html and len(html) < 3000
    assert "1 row, at t = 0" in html


def test_the_notebook_table_counts_events():
    html = fallen_ball()._repr_html_()
    assert "came once" in html and "came 0 times" in html


def test_the_notebook_table_of_a_real_solve():
    model = odec.dynamics(lambda t, y: {"angle": y["rate"], "rate": -np.sin(y["angle"])})
    html = odec.solve(model, (0.0, 1.0), {"angle": 1.0, "rate": 0.0})._repr_html_()
    assert "y[&#x27;angle&#x27;]" in html and "compile seconds" in html
