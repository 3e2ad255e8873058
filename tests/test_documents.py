"""README and docs: their code runs, their links lead somewhere, the reference is up to date."""

import importlib.util
import linecache
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import odec
from odec.integrate.control import CONTROLLERS
from odec.steppers.methods import HOMES, method_named

ROOT = Path(__file__).parent.parent
THEORY = sorted((ROOT / "docs" / "theory").glob("*.md"))
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *THEORY])
RUNNABLE = ("README.md", "adding_an_op.md", "distributed.md", "neural.md", "steady_states.md", "taylor_maps.md")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name in RUNNABLE], ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path):
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    out = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout


GUIDE = (
    "writing_models.md", "solving.md", "choosing_a_method.md", "taylor.md", "tolerances.md", "events.md",
    "results.md", "gradients.md", "ensembles.md", "checking_derivatives.md", "reading_generated_code.md",
)  # fmt: skip


def test_the_guide_runs_from_page_to_page(tmp_path):
    pages = [ROOT / "README.md", *(ROOT / "docs" / name for name in GUIDE)]
    code = "\n".join(block for page in pages for block in blocks(page, "python"))
    ends = """
lotka_volterra.bind(np.ones(2)), heat.bind(np.ones(12))
assert np.allclose(euler(np.ones(3), np.array([10.0, 28.0, 8 / 3]), 0.01, 1), 1 + 0.01 * out)
"""
    script = tmp_path / "guide.py"
    script.write_text("import numba\n" + code + ends, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_the_theory_says_holds(tmp_path):
    script = tmp_path / "theory.py"
    script.write_text("\n".join(block for page in THEORY for block in blocks(page, "python")), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def keys_in(text):
    """Citations as [hairer1993] and [curtis1974, gebremedhin2005], with a place in the source or not."""
    brackets = re.findall(r"\[((?:[a-z]+\d{4}\b)[^\]\n]*)\]", text)
    return {key for inside in brackets for key in re.findall(r"\b[a-z]+(?:19|20)\d\d\b", inside)}


def test_the_bibliography_has_what_is_cited_and_no_more():
    bibliography = ROOT / "docs" / "bibliography.md"
    listed = re.findall(r"^- \*\*\[(\w+)\]\*\* ", bibliography.read_text(encoding="utf-8"), re.MULTILINE)
    sources = [*(ROOT / "odec").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *PAGES]
    cited = {key for file in sources if file != bibliography for key in keys_in(file.read_text(encoding="utf-8"))}
    assert listed == sorted(set(listed))
    assert set(listed) == cited


REFUSED = {
    "if y[0] > 0: ...": ("if y[0] > 0:\n        return y\n    return -y", "np.where("),
    "math.sin(y[0])": ("return [math.sin(y[0]), y[1]]", "np.sin for math.sin"),
    "dy = np.zeros(3); dy[0] = y[1]": ("dy = np.zeros(2)\n    dy[0] = y[1]\n    return dy", "np.zeros_like(y)"),
    "y[y > 0]": ("return y[y > 0]", "np.where("),
    "for i in range(n)": ("return [y[0] for i in range(n)]", "Close over a Python int"),
    "y[0] = ...": ("y[0] = 1.0\n    return y", "y = y.copy()"),
    "np.linalg.eigvals(A)": ("return np.linalg.eigvals(np.outer(y, y))", "docs/adding_an_op.md"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_the_guide_says_cannot_be_traced_gets_its_cure(row):
    assert f"`{row}`" in (ROOT / "docs" / "writing_models.md").read_text(encoding="utf-8")
    body, cure = REFUSED[row]
    namespace, file = {"np": np, "math": math}, f"<{row}>"
    source = f"def model(t, y, n=2.0):\n    {body}\n"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), namespace)
    with pytest.raises(odec.TraceError) as raised:
        odec.dynamics(namespace["model"]).bind(np.ones(2))
    assert cure in str(raised.value)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_table_of_methods_is_true():
    text = (ROOT / "docs" / "choosing_a_method.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+[()\d]* \| \d+ \| \d+(?: \(\+\d+\))?) \| \w", text, re.MULTILINE))
    assert [name for name in HOMES if name not in rows] == ["taylor"] and "| `taylor` | by `rtol` | 1 |" in text
    for name, row in rows.items():
        m = method_named(name)
        order = f"{m.order}" if m.error_order is None else f"{m.order}({m.error_order})"
        extra = f" (+{m.dense_evaluations})" if m.dense_evaluations else ""
        assert row == f"{order} | {m.stages} | {m.dense_order}{extra}", name


def test_the_table_of_controllers_is_complete():
    text = (ROOT / "docs" / "choosing_a_method.md").read_text(encoding="utf-8")
    for name in CONTROLLERS:
        assert f"`{name}`" in text


def test_readme_names_commands_that_exist():
    commands = " ".join(blocks(ROOT / "README.md", "sh"))
    for file in re.findall(r"examples/\w+\.py", commands):
        assert (ROOT / file).exists()
    for extra in re.findall(r'"\.\[(\w+)\]"', commands):
        assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


def test_reference_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == module.reference(), "run `python docs/make_reference.py`"


def test_generated_code_in_the_guide_is_what_is_generated():
    def statements(text):
        return [line for line in text.splitlines() if not line.strip().startswith("#")]

    (shown,) = blocks(ROOT / "docs" / "reading_generated_code.md", "text")
    golden = ROOT / "tests" / "golden" / "lorenz_rhs.py.txt"
    assert statements(shown) == statements(golden.read_text(encoding="utf-8"))
