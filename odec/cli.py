"""The command line: inspect, check and solve models; list methods; look after the cache."""

from __future__ import annotations

import argparse
import ast
import math
import shutil
import sys
import textwrap
import warnings
from pathlib import Path

from odec import __version__
from odec.errors import ArgumentError, OdecError, nearest

KERNELS = ("rhs", "jvp", "vjp", "jacobian", "taylor", "divergence", "step", "dense")
TAKEN_BY = {"method": ("step", "dense"), "order": ("taylor",), "wrt": ("jacobian",)}  # option -> kernels


def main(arguments=None):
    """Run one command; the exit code: 0 done, 1 failed, 2 the arguments cannot be used."""
    words = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args([f" {w}" if _is_negative(w) else w for w in words])
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
            return options.run(options) or 0
    except (ArgumentError, ImportError) as error:
        print(f"odec {options.command}: {error}", file=sys.stderr)
        return 2
    except OdecError as error:
        print(f"odec {options.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader, such as `head`, has gone
        return 0
    except OSError as error:
        print(f"odec {options.command}: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # as a shell reports it


def _is_negative(word):
    """Whether a word is a negative number: argparse takes -1e-3 for an option, unless a space comes first."""
    try:
        return word.startswith("-") and float(word) <= 0
    except ValueError:
        return False


def _parser():
    parser = argparse.ArgumentParser(prog="odec", description=__doc__)
    parser.add_argument("--version", action="version", version=f"odec {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    inspect = _model_command(commands, "inspect", "print a generated kernel, or the graph", _inspect)
    inspect.add_argument("--kernel", default="rhs", choices=KERNELS)
    inspect.add_argument("--language", default="python", choices=("python", "llvm", "asm"))
    inspect.add_argument("--layout", default="auto", choices=("auto", "scalar", "array"))
    inspect.add_argument("--method", help="of the step kernel, one of `odec methods`")
    inspect.add_argument("--order", type=int, help="of the taylor kernel")
    inspect.add_argument("--wrt", help="what the jacobian kernel is taken by: y, t or a parameter")
    inspect.add_argument("--graph", action="store_true", help="list the graph of the right-hand side instead")
    inspect.add_argument("--draw", metavar="FILE.svg", help="draw that graph into a file")

    check = _model_command(commands, "check", "compare every generated derivative with SymPy", _check)
    check.add_argument("--examples", type=int, default=100, help="how many random points (default 100)")

    solve = _model_command(commands, "solve", "solve, and print the end or write rows to a file", _solve)
    solve.add_argument("--t-span", nargs=2, type=float, required=True, metavar=("T0", "T1"), help="first and last time")
    solve.add_argument("--method", default="auto", help="one of those that `odec methods` lists")
    solve.add_argument("--rtol", type=float, default=1e-6, help="relative tolerance (default 1e-6)")
    solve.add_argument("--atol", type=float, default=1e-9, help="absolute tolerance (default 1e-9)")
    solve.add_argument(
        "--first-step", type=float, metavar="H", help="the step of methods with fixed steps, else the first"
    )
    solve.add_argument("--max-step", type=float, default=math.inf, metavar="H", help="the longest step")
    solve.add_argument("--max-steps", type=int, default=1_000_000, metavar="N", help="steps to try (1,000,000)")
    solve.add_argument(
        "--t-eval", nargs="+", type=float, metavar="T", help="times to keep; one whole number N means N even times"
    )
    solve.add_argument("--output", metavar="FILE", help="write the rows to FILE.csv, .npz or .parquet")
    solve.add_argument("--plot", metavar="FILE", help="draw the components over time in FILE.png, .svg or .pdf")
    solve.add_argument("--phase", nargs="+", metavar="NAME", help="draw two or three components against each other")

    commands.add_parser("methods", help="list the methods").set_defaults(run=_methods)
    cache = commands.add_parser("cache", help="where compiled code is kept, and how much")
    cache.add_argument("--clear", action="store_true", help="delete every entry")
    cache.set_defaults(run=_cache)
    return parser


def _model_command(commands, name, text, run):
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("model", metavar="FILE.py:NAME", help="a model in a Python file, or a saved model FILE.json")
    command.add_argument("--y0", nargs="+", required=True, metavar="Y", help="the state: numbers or a Python literal")
    command.add_argument(
        "--params", nargs="*", default=[], metavar="NAME=VALUE", help="values; a default may be left out"
    )
    command.add_argument("--dtype", choices=("float64", "float32"))
    command.set_defaults(run=run)
    return command


# ---- what the words on the line mean -------------------------------------------------------------------


def _model(text):
    """The Model or System that 'FILE.py:NAME' or 'FILE.json' names."""
    from odec.model import Model
    from odec.system import System, load

    file, _, name = text.rpartition(":") if ".py:" in text else (text, "", "")
    if file.endswith(".json"):
        return load(_existing(file))
    if not name:
        raise ArgumentError(f"{text!r} names no model; write FILE.py:NAME, or the FILE.json of a saved model.")
    namespace = _run_file(_existing(file))
    found = namespace.get(name)
    if not isinstance(found, (Model, System)):
        models = [k for k, v in namespace.items() if isinstance(v, (Model, System))]
        what = f"{name!r} is {type(found).__name__}, not a model" if name in namespace else f"there is no {name!r}"
        raise ArgumentError(f"{file}: {what}{nearest(name, models)} Its models: {', '.join(models) or 'none'}.")
    return found


def _existing(file):
    if not Path(file).is_file():
        raise ArgumentError(f"{file}: no such file.")
    return file


def _run_file(file):
    """The names that a Python file defines; its own folder can be imported from, as when it is run."""
    import runpy

    sys.path.insert(0, str(Path(file).resolve().parent))
    try:
        return runpy.run_path(file, run_name="odec_model")
    except OdecError:
        raise
    except Exception as error:
        raise ArgumentError(f"{file}: running it raised {type(error).__name__}: {error}.") from error
    finally:
        sys.path.pop(0)


def _literal(text, what):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ArgumentError(f"{what} is {text!r}; a number or a Python literal such as [1.0, 2.0] is needed.") from None


def _state(words):
    values = [_literal(w, "--y0") for w in words]
    return values[0] if len(values) == 1 and not isinstance(values[0], (int, float)) else values


def _parameters(words):
    params = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ArgumentError(f"--params takes NAME=VALUE, not {word!r}.")
        params[name] = _literal(value, f"--params {name}")
    return params


def _system(options):
    """(system, y0, all parameter values by name)."""
    from odec.system import System

    model, y0, params = _model(options.model), _state(options.y0), _parameters(options.params)
    if isinstance(model, System):
        return model, y0, params
    return model.bind(y0, params, options.dtype), y0, model.parameter_values(params)


# ---- commands ----------------------------------------------------------------------------------------------


def _inspect(options):
    system, _, _ = _system(options)
    if options.draw:
        Path(options.draw).write_text(str(system.graph.draw()), encoding="utf-8")
        print(f"drew the graph of {system.name} into {options.draw}")
        return
    if options.graph:
        print(system.graph)
        return
    how = {k: v for k in ("method", "order", "wrt") if (v := getattr(options, k)) is not None}
    unfit = [k for k in how if options.kernel not in TAKEN_BY[k]]
    if unfit:
        raise ArgumentError(f"--{unfit[0]} does not go with --kernel {options.kernel}; leave it out.")
    print(system.source(options.kernel, options.language, options.layout, **how))


def _check(options):
    from odec.system import System
    from odec.testing import check_model

    if options.examples < 1:
        raise ArgumentError(f"--examples is {options.examples}; at least 1 is needed.")
    model, y0, params = _model(options.model), _state(options.y0), _parameters(options.params)
    if isinstance(model, System):
        raise ArgumentError(f"{options.model}: a saved model has no function to compare with; check FILE.py:NAME.")
    try:
        print(check_model(model, y0, params, examples=options.examples))
    except AssertionError as found:
        print(f"odec check: {found}", file=sys.stderr)
        return 1


def _solve(options):
    from odec.solving import solve

    if options.phase and not options.plot:
        raise ArgumentError("--phase draws into a file; name it with --plot FILE.png.")
    write, draw = _writer(options.output), _drawer(options.plot, options.phase)
    model, y0, params = _model(options.model), _state(options.y0), _parameters(options.params)
    how = {"dense_output": True} if draw else {}
    solution = solve(
        model, options.t_span, y0, params, method=options.method, rtol=options.rtol, atol=options.atol,
        t_eval=_times_to_keep(options), first_step=options.first_step, max_step=options.max_step,
        max_steps=options.max_steps, dtype=options.dtype, throw=False, **how,
    )  # fmt: skip
    if solution.success:
        _print_end(solution, options.t_span[1])
    if write:
        write(solution, options.output)
        print(f"wrote {len(solution.ts):,} rows to {options.output}")
    if draw:
        draw(solution)
        print(f"drew {options.plot}")
    if not solution.success:
        print(f"odec solve: {solution.message}", file=sys.stderr)
        return 1


def _times_to_keep(options):
    """As `solve` takes t_eval: the end alone, unless rows are to be written or drawn."""
    import numpy as np

    times = options.t_eval
    if times is None:
        return None if options.output or options.plot else []
    if len(times) == 1 and times[0] >= 2 and float(times[0]).is_integer():
        return np.linspace(options.t_span[0], options.t_span[1], int(times[0]))
    return times


def _print_end(solution, end):
    import numpy as np

    print(f"t = {end:g}")
    width = max(12, *(len(name) for name in solution.names))
    digits = 8 if solution.flat_rows.dtype == np.float32 else 12
    for name, value in zip(solution.names, solution.structure.flatten(solution.y1, "y1"), strict=True):
        print(f"{name:>{width}} = {value:.{digits}g}")
    stats = solution.stats
    print(f"{stats['steps']:,} steps, {stats['rejected']:,} rejected, {stats['nfev']:,} evaluations, "
          f"{stats['compile_seconds'] + stats['solve_seconds']:.3f} s")  # fmt: skip


def _check_suffix(option, file, endings):
    if Path(file).suffix not in endings:
        raise ArgumentError(f"{option} {file}: the ending must be {', '.join(endings[:-1])} or {endings[-1]}.")


def _writer(output):
    """write(solution, file) for the ending of a file's name, or None; what it needs is found missing before solving."""
    if not output:
        return None
    _check_suffix("--output", output, (".csv", ".npz", ".parquet"))
    if output.endswith(".parquet"):
        from odec.interop.parquet import parquet_writer

        return parquet_writer()
    return _write_npz if output.endswith(".npz") else _write_csv


def _write_npz(solution, output):
    import numpy as np

    np.savez(output, t=solution.ts, y=solution.flat_rows, names=np.array(solution.names))


def _write_csv(solution, output):
    import csv

    import numpy as np

    with open(output, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(["t", *solution.names])
        np.savetxt(file, np.column_stack([solution.ts, solution.flat_rows]), delimiter=",", fmt="%.17g")


def _drawer(output, phase):
    """draw(solution) into a file, or None; Matplotlib is found missing before solving."""
    if not output:
        return None
    _check_suffix("--plot", output, (".png", ".svg", ".pdf"))
    try:
        import matplotlib
    except ImportError:
        raise ImportError("--plot needs Matplotlib; install odec[plot].") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    components = tuple(int(word) if word.isdigit() else word for word in phase) if phase else None

    def draw(solution):
        figure = plt.figure(layout="constrained")
        axes = figure.add_subplot(projection="3d" if components and len(components) == 3 else None)
        solution.plot(axes, phase=components).set_title(solution.name)
        figure.savefig(output, dpi=150)
        plt.close(figure)

    return draw


METHOD_COLUMNS = "{name:<{width}}  {order:<5}  {stages:>6}  {dense:>5}  "


def _methods(options):
    from odec.steppers.methods import methods
    from odec.steppers.taylor import TaylorMethod

    records = methods()
    row = METHOD_COLUMNS.replace("{width}", str(max(len(m.name) for m in records)))
    print(row.format(name="name", order="order", stages="stages", dense="dense") + "family; source")
    columns = min(120, max(80, shutil.get_terminal_size((120, 24)).columns))
    for m in records:
        order = f"{m.order}" if m.error_order is None else f"{m.order}({m.error_order})"
        order, dense = ("rtol", "rtol") if isinstance(m, TaylorMethod) else (order, m.dense_order or "-")
        start = row.format(name=m.name, order=order, stages=m.stages, dense=dense)
        print(
            textwrap.fill(f"{m.family}; {m.source}", columns, initial_indent=start, subsequent_indent=" " * len(start))
        )


def _cache(options):
    from odec.codegen import cache

    if options.clear:
        print(f"deleted {cache.clear():,} entries from {cache.directory()}")
        return
    entries, place = cache.entries(), cache.directory() or "no home folder"
    print(f"{place}: {len(entries):,} entries, {sum(size for _, size in entries) / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
