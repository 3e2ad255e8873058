"""C programs that take fixed steps of a method in straight-line code: what a step's arithmetic costs.

A program holds one model and one method, every coefficient a literal, every loop over components of constant
length. It prints the nanoseconds of a step, the median of several runs. `guarded` adds what an adaptive
step needs besides its stages: the scaled norm of the error and the next step size.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from odec.steppers.tableaus import ButcherTableau

FLAGS = ("-O3", "-march=native", "-ffast-math")
COMPILE_SECONDS = 300

LORENZ = """
static inline void rhs(double t, const double *restrict y, double *restrict d) {
  d[0] = p[0] * (y[1] - y[0]);
  d[1] = y[0] * (p[1] - y[2]) - y[1];
  d[2] = y[0] * y[1] - p[2] * y[2];
}
"""

# The sums of problems.py, star by star; a constant vector of lanes where gcc finds them.
PLEIADES = """
static inline void rhs(double t, const double *restrict y, double *restrict d) {
  for (int i = 0; i < 14; i++) d[i] = y[14 + i];
  for (int i = 0; i < 7; i++) {
    double ax = 0, ay = 0;
    for (int j = 0; j < 7; j++) {
      if (j == i) continue;
      double dx = y[j] - y[i], dy = y[7 + j] - y[7 + i], r = dx * dx + dy * dy, w = p[j] / (r * sqrt(r));
      ax += w * dx;
      ay += w * dy;
    }
    d[14 + i] = ax;
    d[21 + i] = ay;
  }
}
"""

# The same sums with each pair looked at once: half the square roots, the best that hand-written code does.
PLEIADES_PAIRS = """
static inline void rhs(double t, const double *restrict y, double *restrict d) {
  double ax[7] = {0}, ay[7] = {0};
  for (int i = 0; i < 14; i++) d[i] = y[14 + i];
#pragma GCC unroll 7
  for (int i = 0; i < 7; i++) {
#pragma GCC unroll 7
    for (int j = i + 1; j < 7; j++) {
      double dx = y[j] - y[i], dy = y[7 + j] - y[7 + i], r = dx * dx + dy * dy, w = 1 / (r * sqrt(r));
      ax[i] += p[j] * w * dx; ax[j] -= p[i] * w * dx;
      ay[i] += p[j] * w * dy; ay[j] -= p[i] * w * dy;
    }
  }
  for (int i = 0; i < 7; i++) { d[14 + i] = ax[i]; d[21 + i] = ay[i]; }
}
"""

PROGRAM = """
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define N {n}
#define M {m}
#define EACH for (int i = 0; i < N; i++)
static double p[M + 1], start[N];
static double now(void) {{
  struct timespec s; clock_gettime(CLOCK_MONOTONIC, &s); return s.tv_sec + 1e-9 * s.tv_nsec;
}}
{rhs}
{step}
int main(int argc, char **argv) {{
  long steps = atol(argv[1]);
  double size = atof(argv[2]);
  for (int i = 0; i < M; i++) p[i] = atof(argv[3 + i]);
  for (int i = 0; i < N; i++) start[i] = atof(argv[3 + M + i]);
  for (int run = 0; run < {runs}; run++) {{
    double seconds = now(), kept = advance(steps, size);
    printf("%.6f %.17g\\n", (now() - seconds) / steps * 1e9, kept);
  }}
}}
"""


@dataclass(frozen=True)
class CModel:
    """A right-hand side in C, the problem that it belongs to, and a step that is stable for any method."""

    name: str
    rhs: str
    y0: np.ndarray
    params: np.ndarray
    step: float
    steps: int


def step_nanoseconds(model, tableau, guarded=False, runs=7, tolerance=1e-8):
    """(median ns of a step, the state's sum at the end) of the C program for a model and a Butcher tableau."""
    step = runge_kutta(tableau, guarded, tolerance)
    return _timed(model, step, runs)


def rhs_nanoseconds(model, runs=7):
    """Median ns of one right-hand side in C whose argument waits for the one before it."""
    return _timed(model, RHS_ONLY, runs)


def _timed(model, step, runs):
    source = PROGRAM.format(n=len(model.y0), m=len(model.params), rhs=model.rhs, step=step, runs=runs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "straight_line.c"
        path.write_text(source)
        program = path.with_suffix("")
        subprocess.run(["gcc", *FLAGS, str(path), "-o", str(program), "-lm"], check=True, timeout=COMPILE_SECONDS)
        numbers = [model.steps, model.step, *model.params, *model.y0]
        out = subprocess.run([program, *(repr(float(x)) for x in numbers)], check=True, capture_output=True, text=True)
    rows = [[float(x) for x in line.split()] for line in out.stdout.splitlines()]
    return statistics.median(row[0] for row in rows), rows[0][1]


RHS_ONLY = """
static double advance(long steps, double h) {
  double y[N], d[N], kept = 0;
  memcpy(y, start, sizeof y);
  for (long s = 0; s < steps; s++) {
    rhs(0, y, d);
    EACH y[i] += 1e-9 * d[i];
  }
  EACH kept += y[i];
  return kept;
}
"""


def runge_kutta(tableau, guarded=False, tolerance=1e-8):
    """The C function `advance` for a Butcher tableau: fixed steps, the error's combination included."""
    stages, fsal = tableau.stages, tableau.fsal
    lines = [_stage(tableau, i) for i in range(1, stages)]
    if not fsal:
        lines.append(f"    EACH next[i] = y[i] + h * ({_sum(tableau.b)});")
        lines.append(f"    rhs(t + h, next, k{stages});")
    last = f"k{stages - 1}" if fsal else f"k{stages}"
    after = "w" if fsal else "next"
    slopes = ", ".join(f"k{i}[N]" for i in range(stages + (not fsal)))
    return "\n".join(
        [
            "static double advance(long steps, double h) {",
            f"  double y[N], w[N], next[N], {slopes}, t = 0, kept = 0;",
            "  memcpy(y, start, sizeof y);",
            "  rhs(0, y, k0);",
            "  for (long s = 0; s < steps; s++) {",
            *lines,
            *_error(tableau, after, guarded, tolerance),
            f"    EACH {{ y[i] = {after}[i]; k0[i] = {last}[i]; }}",
            "    t += h;",
            "  }",
            "  EACH kept += y[i];",
            "  return kept;",
            "}",
        ]
    )


def _stage(tableau, i):
    time = f"t + {float(tableau.c[i])!r} * h"
    return f"    EACH w[i] = y[i] + h * ({_sum(tableau.a[i])});\n    rhs({time}, w, k{i});"


def _error(tableau, after, guarded, tolerance):
    rows = [row for row in (tableau.b_error, getattr(tableau, "b_error_second", None)) if row is not None]
    if not rows:
        return []
    scale = f" / ({tolerance!r} + {tolerance!r} * fmax(fabs(y[i]), fabs({after}[i])))" if guarded else ""
    lines = [f"    double squared{m} = 0;" for m in range(len(rows))]
    for m, row in enumerate(rows):
        lines.append(f"    EACH {{ double e = h * ({_sum(row)}){scale}; squared{m} += e * e; }}")
    if len(rows) == 2:
        lines.append("    squared0 = squared0 * squared0 / (squared0 + 0.01 * squared1);")
    if not guarded:
        return [*lines, "    kept += squared0;"]
    # The next step size is computed as an adaptive loop would and waited for, but kept where it was.
    power = -0.5 / (tableau.error_order + 1)
    return [*lines, f"    h += 1e-300 * fmin(10, fmax(0.2, 0.9 * pow(squared0 / N, {power!r})));"]


def _sum(coefficients):
    return " + ".join(f"{float(x)!r} * k{j}[i]" for j, x in enumerate(coefficients) if x != 0) or "0"


def translates(record):
    """Whether the method is one of the kinds that a program can be written from."""
    return isinstance(record, ButcherTableau)
