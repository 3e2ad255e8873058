"""The command line, as a user types it."""

import builtins
import textwrap

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

import odec
from odec.cli import main

MODEL = textwrap.dedent(
    """
    import numpy as np
    import odec

    @odec.dynamics(state=("x", "v"))
    def spring(t, y, k=4.0, c=0.1):
        x, v = y
        return [v, -k * x - c * v]

    @odec.dynamics
    def needs(t, y, rate):
        return [-rate * y[0]]

    @odec.dynamics
    def branches(t, y):
        return [1.0 if y[0] > 0 else 0.0]

    @odec.dynamics
    def explodes(t, y):
        return [y[0] ** 2]

    @odec.dynamics
    def square(t, y):
        return -y

    number = 3
    """
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "models.py"
    path.write_text(MODEL)
    return str(path)


def run(capsys, *arguments):
    code = main(list(arguments))
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize(
    "language, sign", [("python", "def rhs(t, y, p, dydt)"), ("llvm", "define void @rhs"), ("asm", "rhs:")]
)
def test_inspect_prints_each_language(file, capsys, language, sign):
    code, out, _ = run(capsys, "inspect", f"{file}:spring", "--y0", "1", "0", "--language", language)
    assert code == 0 and sign in out


@pytest.mark.parametrize("kernel", ["rhs", "jvp", "vjp", "jacobian", "taylor", "divergence", "step"])
def test_inspect_prints_each_kernel(file, capsys, kernel):
    code, out, _ = run(capsys, "inspect", f"{file}:spring", "--y0", "1", "0", "--kernel", kernel)
    assert code == 0 and f"def {kernel}(" in out


def test_inspect_lists_and_draws_the_graph(file, capsys, tmp_path):
    code, out, _ = run(capsys, "inspect", f"{file}:spring", "--y0", "1", "0", "--graph")
    assert code == 0 and "mul(" in out and "models.py" in out
    code, out, _ = run(capsys, "inspect", f"{file}:spring", "--y0", "1", "0", "--draw", str(tmp_path / "g.svg"))
    assert code == 0 and "<svg" in (tmp_path / "g.svg").read_text()


def test_check_compares_derivatives(file, capsys):
    code, out, _ = run(capsys, "check", f"{file}:spring", "--y0", "1", "0", "--examples", "5")
    assert code == 0 and "jacobian" in out


def test_solve_prints_the_end_by_name(file, capsys):
    code, out, _ = run(capsys, "solve", f"{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--params", "c=0")
    assert code == 0
    x = float(next(line for line in out.splitlines() if " x = " in line).split("=")[1])
    assert abs(x - np.cos(2.0)) < 1e-4


def test_negative_numbers_may_have_exponents(file, capsys):
    code, out, _ = run(capsys, "solve", f"{file}:spring", "--t-span", "-1e-1", "-1e-3", "--y0", "-1e-3", "-1")
    assert code == 0 and "t = -0.001" in out


@pytest.mark.parametrize("ending", ["csv", "npz", "parquet"])
def test_solve_writes_rows(file, capsys, tmp_path, ending):
    output = str(tmp_path / f"rows.{ending}")
    code, out, _ = run(
        capsys, "solve", f"{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--t-eval", "11", "--output", output
    )
    assert code == 0 and f"wrote 11 rows to {output}" in out
    if ending == "npz":
        with np.load(output) as stored:
            assert stored["names"].tolist() == ["x", "v"]
            t, y = stored["t"], stored["y"]
    else:
        table = pyarrow.parquet.read_table(output) if ending == "parquet" else pyarrow.csv.read_csv(output)
        assert table.column_names == ["t", "x", "v"]
        t, y = table["t"].to_numpy(), np.stack([table["x"], table["v"]], axis=1)
    assert t.shape == (11,) and y.shape == (11, 2) and np.array_equal(t, np.linspace(0, 1, 11))


def test_names_with_commas_stay_one_column(file, capsys, tmp_path):
    output = str(tmp_path / "rows.csv")
    code, _, _ = run(capsys, "solve", f"{file}:square", "--t-span", "0", "1", "--y0", "[[1, 2]]", "--output", output)
    assert code == 0 and pyarrow.csv.read_csv(output).column_names == ["t", "y[0, 0]", "y[0, 1]"]


def test_the_end_is_printed_when_the_last_row_is_not_there(file, capsys):
    code, out, _ = run(
        capsys, "solve", f"{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--params", "c=0", "--t-eval", "0.5"
    )
    x = float(next(line for line in out.splitlines() if " x = " in line).split("=")[1])
    assert code == 0 and "t = 1\n" in out and abs(x - np.cos(2.0)) < 1e-4


def test_a_float32_end_has_float32_digits(file, capsys):
    code, out, _ = run(capsys, "solve", f"{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--dtype", "float32")
    digits = next(line for line in out.splitlines() if " x = " in line).split("=")[1].strip().lstrip("-0.")
    assert code == 0 and len(digits) <= 8


def test_what_was_reached_is_written(file, capsys, tmp_path):
    output = str(tmp_path / "rows.csv")
    code, out, err = run(capsys, "solve", f"{file}:explodes", "--t-span", "0", "9", "--y0", "1", "--output", output)
    table = pyarrow.csv.read_csv(output)
    assert code == 1 and "explodes" in err and "t = 1" in err and "wrote" in out
    assert table.num_rows > 10 and table["t"][-1].as_py() == pytest.approx(1.0, abs=1e-3)


def test_steps_can_be_limited(file, capsys, tmp_path):
    output = str(tmp_path / "rows.npz")
    code, _, _ = run(
        capsys, "solve", f"{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--first-step", "0.01", "--max-step",
        "0.02", "--output", output,
    )  # fmt: skip
    with np.load(output) as stored:
        t = stored["t"]
    assert code == 0 and t[1] == 0.01 and np.diff(t).max() <= 0.02 * (1 + 1e-12)


@pytest.mark.parametrize("method", [m.name for m in odec.methods() if m.error_order is not None][:4])
def test_methods_are_chosen_by_name(file, capsys, method):
    code, _, _ = run(capsys, "solve", f"{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--method", method)
    assert code == 0
    code, out, _ = run(capsys, "inspect", f"{file}:spring", "--y0", "1", "0", "--kernel", "step", "--method", method)
    assert code == 0 and "def step(" in out


@pytest.mark.parametrize("extra", [(), ("--phase", "x", "v"), ("--phase", "0", "1", "x"), ("--t-eval", "3")])
def test_solve_draws(file, capsys, tmp_path, extra):
    output = str(tmp_path / "p.png")
    code, out, _ = run(
        capsys, "solve", f"{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--plot", output, *extra
    )
    assert code == 0 and (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG" and f"drew {output}" in out


def test_missing_packages_are_named_before_solving(file, capsys, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name in ("matplotlib", "pyarrow"):
            raise ImportError
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for option, output, extra in (("--output", "a.parquet", "odec[parquet]"), ("--plot", "a.png", "odec[plot]")):
        code, out, err = run(capsys, "solve", f"{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", option, output)
        assert code == 2 and extra in err and not out


def test_a_saved_model_is_a_model(file, capsys, tmp_path):
    import runpy

    saved = str(tmp_path / "spring.json")
    runpy.run_path(file)["spring"].bind([1.0, 0.0]).save(saved)
    code, out, _ = run(capsys, "solve", saved, "--t-span", "0", "1", "--y0", "1", "0", "--params", "k=4.0", "c=0.1")
    assert code == 0 and " x = " in out


def test_methods_are_listed_in_columns(capsys):
    code, out, _ = run(capsys, "methods")
    lines = out.splitlines()
    assert code == 0 and all(len(line) <= 120 for line in lines)
    for method in odec.methods():
        (line,) = (line for line in lines if line.split()[0] == method.name)
        order = f"{method.order}" if method.error_order is None else f"{method.order}({method.error_order})"
        dense = method.dense_order
        if method.name == "taylor":
            order = dense = "rtol"
        assert line.split()[1:4] == [order, str(method.stages), str(dense)]
        assert line.index(method.family.split()[0]) == lines[0].index("family")
        assert method.source.split()[0] in out


def test_cache_counts_and_clears(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("ODEC_CACHE_DIR", str(tmp_path / "cache"))
    code, out, _ = run(capsys, "cache")
    assert code == 0 and "0 entries" in out
    code, out, _ = run(capsys, "cache", "--clear")
    assert code == 0 and "deleted 0" in out


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (("inspect", "nowhere.py:spring", "--y0", "1"), 2, ["nowhere.py", "no such file"]),
        (("inspect", "{file}:sprong", "--y0", "1", "0"), 2, ["sprong", "did you mean 'spring'"]),
        (("inspect", "{file}:number", "--y0", "1", "0"), 2, ["int", "not a model"]),
        (("inspect", "{file}", "--y0", "1", "0"), 2, ["FILE.py:NAME"]),
        (("inspect", "{file}:spring", "--y0", "one"), 2, ["--y0", "one"]),
        (("inspect", "{file}:spring", "--y0", "1", "0", "--order", "3"), 2, ["--order", "--kernel rhs"]),
        (("inspect", "{file}:branches", "--y0", "1"), 1, ["models.py", "np.where"]),
        (("solve", "{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--params", "q=1"), 2, ["'q'", "k, c"]),
        (("solve", "{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--params", "1"), 2, ["NAME=VALUE"]),
        (("solve", "{file}:needs", "--t-span", "0", "1", "--y0", "1"), 2, ["needs", "rate"]),
        (("solve", "{file}:spring", "--t-span", "0", "0", "--y0", "1", "0"), 2, ["t_span"]),
        (("solve", "{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--method", "tsit"), 2, ["'tsit5'"]),
        (
            ("solve", "{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--output", "a.xyz"),
            2,
            [".csv, .npz or .parquet"],
        ),
        (("solve", "{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--plot", "a.xyz"), 2, [".png"]),
        (("solve", "{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--phase", "x", "v"), 2, ["--plot"]),
        (
            ("solve", "{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--plot", "a.png", "--phase", "x", "w"),
            2,
            ["'w'", "x, v"],
        ),
        (("solve", "{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--max-step", "0"), 2, ["max_step", "0"]),
        (("solve", "{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--t-eval", "nan"), 2, ["t_eval", "nan"]),
        (("solve", "{file}:spring", "--t-span", "0", "1", "--y0", "1", "0", "--output", "{file}/a.csv"), 1, ["a.csv"]),
        (("inspect", "{file}:spring", "--y0", "1", "0", "--draw", "{file}/a.svg"), 1, ["a.svg"]),
        (("check", "{file}:spring", "--y0", "1", "0", "--examples", "0"), 2, ["--examples", "at least 1"]),
        (("solve", "{file}:explodes", "--t-span", "0", "9", "--y0", "1"), 1, ["t = 1"]),
    ],
)
def test_mistakes_get_a_sentence(file, capsys, arguments, code, words):
    found, _, err = run(capsys, *(a.format(file=file) for a in arguments))
    assert found == code
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err
