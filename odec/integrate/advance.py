"""One try of a step as a graph: the step, whether it is accepted, and the size of the next.

advance : (now, task, y, p, f0, rtol, atol, rules) -> then, y1, f1, k
    now, then (NOWS,), task (TASKS,), rules (RULES,)   float64 numbers, named in slots.py
    y1 (n,), f1, k (kept, n)                           as the step's; with `commits`, of a rejected step y and f0

Many trajectories side by side run it in the lanes of vectors, so there is no branch in it: what depends on a
condition is selected. It is straight-line code with the step, and the same code on every target. Conditions that hold
together are the least of several margins: a truth value for each lane costs more to join than a number.
"""

from __future__ import annotations

import math

import numpy as np

from odec.graph.function import Function
from odec.graph.node import input_node, line_is
from odec.graph.op import OPS
from odec.integrate import slots as at
from odec.integrate.slots import FREE, HELD, RESOLUTION
from odec.ops.comparison import larger, smaller
from odec.ops.rough import rough_exp2, rough_log2
from odec.ops.structure import concatenate, element, reshape, stack
from odec.steppers.hermite import stacked
from odec.steppers.runge_kutta import named
from odec.steppers.step import own_size, step_function, taped_step_function
from odec.steppers.taylor import Sizes, told_order

LEAST_LOG = -13.287712379549449  # log2(1e-4): errors below say no more [hairer1993, II.4]
STRETCH, STRETCH_FIXED = 1.01, 1.000001  # how much longer the last step may be than the size asked for
FAR = 1e300  # the square of an error norm beyond which it says nothing of the next size
RETREAT = 0.25  # after such a step
MOST_STRETCH = 10.0  # of a step that finds its own size, in units of the last one

where, absolute = OPS["where"], OPS["abs"]
lt, le, ge, gt = (OPS[name] for name in ("lt", "le", "ge", "gt"))


def advance_function(f, method, commits=True, keeps=True, tapes=False):
    """One try of a step of the method for f (t: (), y: (n,), p: (m,)) -> (n,), as a Function.

    commits : select between the new state and the old one; else the loop takes what was accepted
    keeps : write the stages that the dense output needs; else k has no elements
    tapes : write the residuals of taped_step_function behind them
    """
    step = taped_step_function(f, method) if tapes else step_function(f, method)
    given = step.inputs
    inputs = {
        "now": input_node("now", (at.NOWS,), "float64"), "task": input_node("task", (at.TASKS,), "float64"),
        **{name: given[name] for name in ("y", "p", "f0", "rtol", "atol")},
        "rules": input_node("rules", (at.RULES,), "float64"),
    }  # fmt: skip
    with line_is(None):
        now, task, rules = (_Slots(inputs[name], names) for name, names in _NAMES.items())
        last = [told_order(method, element(inputs["now"], at.ORDER))] if method.adapts_order else []
        point = now.t, *(inputs[name] for name in ("y", "p", "rtol", "atol"))
        orders = Sizes(f, method, *point, *last) if last else None
        plan = _Plan(now, task, rules, orders.own if orders else own_size(f, method, *point))
        found = step(now.t, plan.tried, *(inputs[name] for name in ("y", "p", "f0", "rtol", "atol")), *last)
        accepted = plan.accepted(found["error"])
        then = _then(now, task, rules, plan, found["error"], accepted, method, orders)
        y1, f1 = found["y1"], found["f1"]
        if commits:
            y1 = where(accepted, y1, inputs["y"])
            f1 = where(accepted, f1, inputs["f0"]) if f1.size else f1
        k = found["k"] if keeps else stacked([], inputs["y"])
        if tapes:
            k = concatenate(reshape(k, shape=(k.size,)), found["residuals"], axis=0)
    return Function("advance", inputs, {"then": then, "y1": y1, "f1": f1, "k": k})


def rules_of(method, problem):
    """The rules (RULES,) that all members of a problem share."""
    t0, t1 = problem.span
    rules = np.zeros(at.RULES)
    rules[at.DIRECTION] = 1.0 if t1 > t0 else -1.0
    rules[at.STRETCH] = STRETCH if method.adaptive else STRETCH_FIXED
    rules[at.MIN_STEP], rules[at.MAX_STEP], rules[at.MAX_STEPS] = problem.min_step, problem.max_step, problem.max_steps
    rules[at.FLOOR] = math.nextafter(problem.min_step, 0.0) if method.adaptive else 0.0
    rules[at.FIRST_STEP] = problem.first_step
    gains = problem.controller.gains(method.error_exponent)
    rules[at.GAINS : at.GAINS + len(gains)] = gains
    return rules


def control_function():
    """What `advance` makes of a step's error, without the step: (now, task, rules, error) -> then."""
    inputs = {"now": (at.NOWS,), "task": (at.TASKS,), "rules": (at.RULES,), "error": ()}
    inputs = {name: input_node(name, shape, "float64") for name, shape in inputs.items()}
    now, task, rules = (_Slots(inputs[name], names) for name, names in _NAMES.items())
    plan = _Plan(now, task, rules)
    then = _then(now, task, rules, plan, inputs["error"], plan.accepted(inputs["error"]))
    return Function("control", inputs, {"then": then})


class _Slots:
    """The elements of a vector by name."""

    def __init__(self, vector, names):
        for place, name in names.items():
            setattr(self, name, named(element(vector, place), name))

    def __getattr__(self, name):
        raise AttributeError(name)


_NAMES = {
    "now": {at.T: "t", at.H: "h", at.LOG1: "log1", at.LOG2: "log2", at.RATIO1: "ratio1", at.RATIO2: "ratio2",
            at.MOST_GROWTH: "most_growth", at.STEPS: "steps", at.TRIES: "tries", at.LOST: "lost"},
    "task": {at.STOP: "stop", at.SPARED: "spared", at.NEXT: "next_kept", at.LIVE: "live"},
    "rules": {at.DIRECTION: "direction", at.STRETCH: "stretch", at.FLOOR: "floor", at.MAX_STEP: "max_step",
              at.MAX_STEPS: "max_steps", at.SETPOINT: "setpoint", at.BETA1: "beta1", at.BETA2: "beta2",
              at.BETA3: "beta3", at.ALPHA2: "alpha2", at.ALPHA3: "alpha3", at.LEAST: "least_log", at.MOST: "most_log",
              at.INVERSE: "inverse", at.SAFETY: "safety"},
}  # fmt: skip


class _Plan:
    """The size to try: the controller's within its bounds, or up to the stop where that is near.

    own : the size that the step finds for itself, None for a method of which the controller says it
    ends : whether the step ends at the stop; stuck : whether no step can be taken
    """

    def __init__(self, now, task, rules, own=None):
        asked = absolute(now.h) if own is None else smaller(own, absolute(now.h))
        self.size = named(smaller(asked, rules.max_step), "size")
        left = named(task.stop - now.t, "left")
        beyond = (now.t + rules.stretch * rules.direction * self.size - task.stop) * rules.direction
        self.ends = named(ge(smaller(beyond, rules.max_step - absolute(left)), 0.0), "ends")
        gap = task.spared * larger(absolute(task.stop), absolute(left))  # so that no stage sees beyond a discontinuity
        last = where(gt(absolute(left), gap), left - rules.direction * gap, left)
        self.tried = named(where(self.ends, last, rules.direction * self.size), "tried")
        least = larger(RESOLUTION * absolute(now.t), rules.floor)
        self.stuck = named(le(where(self.ends, 1.0, self.size), where(self.ends, 0.0, least)), "stuck")

    def accepted(self, squared):
        """Whether a step of this size whose error norm has this square is accepted."""
        return named(le(where(self.stuck, FAR, squared), 1.0), "accepted")


def _then(now, task, rules, plan, squared, accepted, method=None, orders=None):
    """The slots after the try; without a method, of any that has a controller."""
    adaptive, exactly = method is None or method.adaptive, method is not None and method.sizes_itself
    ahead, lost = _moved(now, plan, exactly)
    t = named(where(accepted, where(plan.ends, task.stop, ahead), now.t), "t1")
    taken, stuck = where(accepted, 1.0, 0.0), where(plan.stuck, 1.0, 0.0)
    steps, tries = now.steps + taken, now.tries + (1.0 - stuck)
    left = smaller(task.next_kept * rules.direction, task.stop * rules.direction) - t * rules.direction
    quiet = smaller(left, rules.max_steps - tries)  # the least margin of what asks for attention
    quiet = quiet - FAR * stuck if adaptive else where(accepted, quiet, 0.0)
    attention = where(le(quiet, 0.0), task.live, 0.0)
    if exactly:
        control = _retried(now, task, rules, plan, squared, accepted, t, orders)
        lost = where(accepted, where(plan.ends, 0.0, lost), now.lost)
    elif adaptive:
        control = _controlled(now, rules, plan, squared, accepted, taken)
    else:
        control = [now.h, now.log1, now.log2, now.ratio1, now.ratio2, now.most_growth, taken]
    parts = [t, *control, steps, tries, lost, plan.tried, taken, stuck, attention]
    assert len(parts) == at.NOWS
    return stack(parts, (at.NOWS,))


def _controlled(now, rules, plan, squared, accepted, taken):
    """(h, log1, log2, ratio1, ratio2, most_growth, broken) after the try: a digital filter of the errors' logarithms.

    After a rejected step the history stays, and the next accepted one may not grow; so it stays after a step cut
    short by a stop, which says nothing about the next one, and after one cut short by max_step.
    References: as for control.Controller
    """
    log_error = named(0.5 * rough_log2(squared), "log_error")
    past = rules.setpoint - rules.beta2 * now.log1 - rules.beta3 * now.log2
    past = past - (rules.alpha2 * now.ratio1 + rules.alpha3 * now.ratio2)
    most = smaller(rules.most_log, now.most_growth)
    filtered = smaller(most, larger(rules.least_log, past - rules.beta1 * log_error))
    shrunk = larger(rules.least_log, rules.safety - rules.inverse * log_error)
    log_factor = named(where(accepted, filtered, shrunk), "log_factor")
    finite = lt(squared, FAR)
    factor = named(where(finite, rough_exp2(log_factor), RETREAT), "factor")
    ended = where(plan.ends, taken, 0.0)
    h = where(gt(ended, 0.0), now.h, plan.tried * factor)
    learns = le((absolute(now.h) - plan.size) + (ended + (1.0 - taken)), 0.0)
    history = (
        where(learns, larger(log_error, LEAST_LOG), now.log1), where(learns, now.log1, now.log2),
        where(learns, log_factor, now.ratio1), where(learns, now.ratio1, now.ratio2),
    )  # fmt: skip
    return [h, *history, where(accepted, FREE, HELD), where(finite, 0.0, 1.0)]


def _moved(now, plan, exactly):
    """(t + tried, what rounding left out of it); with `exactly` what was left out before goes in [knuth1998, 4.2.2]."""
    if not exactly:
        return now.t + plan.tried, 0.0
    step = plan.tried + now.lost
    ahead = now.t + step
    shift = ahead - now.t
    return ahead, (now.t - (ahead - shift)) + (step - shift)


def _retried(now, task, rules, plan, squared, accepted, t, orders):
    """As _controlled, where each step finds its own size: how far the next may go, which no run of coefficients that
    happen to vanish can stretch beyond some times the last; and of which order it is, where that is adapted.

    orders : Sizes or None
    """
    h = where(accepted, rules.direction * MOST_STRETCH * plan.size, RETREAT * plan.tried)
    order = now.most_growth
    if orders is not None:  # behind a stop the next one is taken to be as near
        left = where(plan.ends, plan.tried, task.stop - t)
        longest = where(accepted, smaller(absolute(left), rules.max_step), FAR)
        order = orders.next_order(smaller(longest, absolute(h)))
    return [h, now.log1, now.log2, now.ratio1, now.ratio2, order, where(lt(squared, FAR), 0.0, 1.0)]
