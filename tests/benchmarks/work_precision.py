"""Work and precision of every adaptive method: python tests/benchmarks/work_precision.py [--rows FILE] [--figures DIR]

Solves the 26 nonstiff problems with every adaptive method at rtol = 1e-4 .. 1e-12 and atol = rtol times the
problem's scale, draws the pictures of docs/work_precision.md and renews its tables: how well each method keeps its
tolerance, where the error exceeds ten tolerances times the problem's cond and why, which method is cheapest.
--rows keeps the solves in a JSON file and reads them from there the next time; with --figures the pictures go
there and the tables are printed. Errors and counts do not depend on the machine; seconds do.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "problems"))

from records import load, numbers

import odec

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "work_precision.md"
TOLERANCES = tuple(10.0**-k for k in range(4, 13))
MAX_STEPS = 1_000_000
ALLOWED = 10.0  # errors in tolerances times max(cond, 1)
KNOWN = {
    "fehlberg2": "its estimate is 1/512 of the change of slope over a step, made for a solution of order 1 that is "
    "nearly of order 2: the steps it allows are too long for what the tolerance says",
}
UNIT = 1.1e-16  # rounding of a double


# ---- solving


def solved(problem, method, tolerance):
    """The error relative to `scale` and the counts of one solve, as a row."""
    record = problem.record
    sol = odec.solve(
        problem.model, (record["t0"], record["t1"]), record["y0"], problem.params, method=method, rtol=tolerance,
        atol=tolerance * np.array(record["scale"]), t_eval=[], max_steps=MAX_STEPS, throw=False,
    )  # fmt: skip
    error = np.max(np.abs(sol.y1 - numbers(record["reference"]["y"])) / record["scale"]) if sol.success else math.inf
    return {
        "problem": problem.name, "method": method, "tolerance": tolerance, "error": float(error),
        "cond": max(record["cond"], 1.0), "status": sol.status.name, "steps": sol.stats["steps"],
        "rejected": sol.stats["rejected"], "nfev": sol.stats["nfev"], "seconds": sol.stats["solve_seconds"],
    }  # fmt: skip


def all_rows(methods, problems):
    rows = []
    for problem in problems:
        for method in methods:
            rows += [solved(problem, method, tolerance) for tolerance in TOLERANCES]
        print(problem.name, file=sys.stderr, flush=True)
    return rows


# ---- the table


def excess(row):
    """The error in tolerances times cond."""
    return row["error"] / (row["tolerance"] * row["cond"])


def reason(row, rows):
    """Why a row's error is more than the tolerance promises, in a few words.

    The step control bounds the error of each step by the tolerance, not their sum.
    """
    if row["method"] in KNOWN:
        return KNOWN[row["method"]]
    if row["status"] == "STEP_LIMIT":
        return f"needs more than {MAX_STEPS:,} tries"
    if row["status"] != "SUCCESS":
        return row["status"].lower().replace("_", " ")
    if row["error"] <= 10 * UNIT * row["cond"] * math.sqrt(row["nfev"]):
        return "rounding"
    if excess(row) <= row["steps"]:
        return "at most one tolerance a step: the errors of many steps add up"
    if is_settling(row, rows):
        return "long steps, where the estimate is far from its limit; tighter tolerances do better"
    return "the estimate misses the error"


def is_settling(row, rows):
    """Whether the same method keeps what it promises at a tighter tolerance."""
    same = (r for r in rows if (r["problem"], r["method"]) == (row["problem"], row["method"]))
    return any(r["tolerance"] < row["tolerance"] and excess(r) <= 0.5 * excess(row) for r in same)


def table(rows):
    """Lines of the Markdown table: one for each problem and reason, the methods with their largest excess.

    The step limit and what is known of a method hold everywhere, so those solves share a line.
    """
    groups = defaultdict(list)
    for row in rows:
        if not excess(row) <= ALLOWED:
            everywhere = row["status"] == "STEP_LIMIT" or row["method"] in KNOWN
            groups["" if everywhere else row["problem"], reason(row, rows)].append(row)
    lines = [
        "| problem | methods, with the largest error over tolerance times cond | rtol | steps | why |",
        "|---|---|---|---|---|",
    ]
    for (problem, why), found in sorted(groups.items(), key=lambda group: not group[0][0]):
        worst = defaultdict(float)
        for row in found:
            worst[row["method"]] = max(worst[row["method"]], excess(row) if row["error"] < math.inf else 0.0)
        listed = ", ".join(f"{method} {value:.0f}" if value else method for method, value in worst.items())
        tolerances = _range([-row["tolerance"] for row in found], lambda x: f"{-x:.0e}")
        steps = _range([row["steps"] for row in found], lambda n: f"{n:,}")
        place = problem or f"{len({row['problem'] for row in found})} problems"
        lines.append(f"| {place} | {listed} | {tolerances} | {steps} | {why} |")
    return lines


def _range(values, text):
    low, high = min(values), max(values)
    return text(low) if low == high else f"{text(low)} to {text(high)}"


def summary(rows):
    """Lines of the Markdown table of methods: how many solves keep the promise, the median and largest excess."""
    lines = ["| method | solves within 10 tolerances times cond | median of error over that | largest |",
             "|---|---|---|---|"]  # fmt: skip
    for method in dict.fromkeys(row["method"] for row in rows):
        values = [excess(row) for row in rows if row["method"] == method]
        kept = sum(value <= ALLOWED for value in values)
        finite = [value for value in values if value < math.inf]
        lines.append(
            f"| {method} | {kept} of {len(values)} | {np.median(finite) / ALLOWED:.2g} | {max(finite) / ALLOWED:.2g} |"
        )
    return lines


WANTED = (1e-4, 1e-6, 1e-8, 1e-10)


def evaluations_at(rows, error):
    """Evaluations after which the error of one method on one problem stays at most `error`; infinite if it never does.

    Logarithms are interpolated; the error of a tolerance counts as the largest of it and all tighter ones.
    """
    worst = np.maximum.accumulate([row["error"] for row in rows][::-1])[::-1]
    below = np.flatnonzero(worst <= error)
    if not below.size:
        return math.inf
    first = int(below[0])
    after = math.log(rows[first]["nfev"])
    if first == 0:
        return math.exp(after)
    share = math.log(worst[first - 1] / error) / math.log(worst[first - 1] / worst[first])
    before = math.log(rows[first - 1]["nfev"])
    return math.exp(before + share * (after - before))


def cheapest(rows):
    """Lines of the Markdown table: the evaluations of each method over those of the cheapest, medians over problems."""
    series = defaultdict(list)
    for row in rows:
        if row["error"] < math.inf:
            series[row["problem"], row["method"]].append(row)
    problems, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("problem", "method"))
    lines = ["| method | " + " | ".join(f"{error:.0e}" for error in WANTED) + " |", "|---" * (len(WANTED) + 1) + "|"]
    counts = {(p, m, e): evaluations_at(series[p, m], e) for p in problems for m in methods for e in WANTED}
    least = {(p, e): min(counts[p, m, e] for m in methods) for p in problems for e in WANTED}
    for method in methods:
        cells = []
        for error in WANTED:
            reached = [p for p in problems if least[p, error] < math.inf]
            ratio = np.median([counts[p, method, error] / least[p, error] for p in reached])
            cells.append(f"{ratio:.1f}" if ratio < math.inf else "not reached")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def renew(page, tables):
    """Replace what stands between `<!-- name -->` and `<!-- end -->` in a page by the lines of that name."""
    text = page.read_text(encoding="utf-8")
    for name, lines in tables.items():
        head, rest = text.split(f"<!-- {name} -->\n", 1)
        text = head + f"<!-- {name} -->\n" + "\n".join(lines) + "\n<!-- end -->" + rest.split("<!-- end -->", 1)[1]
    page.write_text(text, encoding="utf-8")


# ---- the pictures

COLOURS = {
    "bs3": "#222222", "tsit5": "#0072b2", "dopri5": "#56b4e9", "vern7": "#009e73", "dop853": "#d55e00",
    "vern9": "#cc79a7",
}  # fmt: skip
COLUMNS = 6


def panels(count, columns, height=1.8):
    """A figure of `count` small axes and the axes, those left over removed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "odec", "font.size": 7, "axes.linewidth": 0.5})
    lines = math.ceil(count / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(1.9 * columns, height * lines), layout="constrained", squeeze=False
    )
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, list(axes.flat[:count])


def trim(axis, title):
    """A small title, a label for each few decades, nothing between."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_title(title, fontsize=8)
    axis.tick_params(length=2, width=0.5)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(LogLocator(numticks=5))
        side.set_minor_locator(NullLocator())


def draw_work(rows):
    """Evaluations over error for each problem; the methods of COLOURS stand out from the others."""
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    figure, axes = panels(len(problems), COLUMNS)
    for axis, problem in zip(axes, problems):
        mine = [row for row in rows if row["problem"] == problem and 0 < row["error"] < 1]
        methods = list(dict.fromkeys(row["method"] for row in mine))
        for method in sorted(methods, key=lambda m: m in COLOURS):
            points = [(row["error"], row["nfev"]) for row in mine if row["method"] == method]
            style = {"color": COLOURS.get(method, "#c8c8c8"), "lw": 1.2 if method in COLOURS else 0.6}
            axis.loglog(*zip(*points), label=method if method in COLOURS else None, **style)
        axis.invert_xaxis()
        trim(axis, problem)
    figure.supxlabel("error at the end, relative to scale")
    figure.supylabel("evaluations of the right-hand side")
    known = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    ordered = [name for name in COLOURS if name in known]
    figure.legend([known[name] for name in ordered], ordered, loc="lower right", ncols=3, title="method (others grey)")
    return figure


def draw_promise(rows):
    """Error over tolerance times cond for each method, a thin line for each problem, the promise across."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = panels(len(methods), COLUMNS, 1.7)
    for axis, method in zip(axes, methods):
        axis.axhspan(1e-6, ALLOWED, color="#e8f3ee", lw=0)
        for problem in dict.fromkeys(row["problem"] for row in rows):
            points = [
                (row["tolerance"], excess(row)) for row in rows
                if (row["problem"], row["method"]) == (problem, method) and 0 < row["error"] < math.inf
            ]  # fmt: skip
            if points:
                axis.loglog(*zip(*points), color="#0072b2", lw=0.5, alpha=0.6)
        axis.set(ylim=(1e-5, 1e4), xlim=(2e-4, 5e-13))
        trim(axis, method)
    figure.supxlabel("rtol")
    figure.supylabel("error / (rtol cond)")
    return figure


def draw(rows, folder, kind):
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in (("work_precision", draw_work), ("tolerance_kept", draw_promise)):
        figure = picture(rows)
        options = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 110}
        figure.savefig(folder / f"{name}.{kind}", **options)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=Path, help="JSON file of the solves: read if it is there, else written")
    parser.add_argument(
        "--figures", type=Path, help="folder for the pictures, to look at them; the page stays as it is"
    )
    parser.add_argument("--kind", choices=("svg", "png"), default="svg")
    parser.add_argument("--methods", nargs="*", help="only these")
    parser.add_argument("--quick", action="store_true", help="four problems")
    arguments = parser.parse_args()
    if arguments.rows and arguments.rows.exists():
        rows = json.loads(arguments.rows.read_text())
    else:
        methods = arguments.methods or [r.name for r in odec.methods() if r.error_order is not None]
        rows = all_rows(methods, load("nonstiff.json")[: 4 if arguments.quick else None])
        if arguments.rows:
            arguments.rows.write_text(json.dumps(rows))
    draw(rows, arguments.figures or DOCS / "figures", arguments.kind)
    tables = {"kept": summary(rows), "exceeded": table(rows), "cheapest": cheapest(rows)}
    if arguments.figures:
        print("\n\n".join("\n".join(lines) for lines in tables.values()))
    else:
        renew(PAGE, tables)


if __name__ == "__main__":
    main()
