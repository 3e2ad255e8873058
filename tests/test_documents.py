"""README and docs: their code runs, their links lead somewhere, the reference is up to date."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
RUNNABLE = ("README.md", "adding_an_op.md")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name in RUNNABLE], ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path):
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    out = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout


def test_models_in_the_guide_can_be_traced():
    import numpy as np

    import odec

    namespace = {"np": np, "odec": odec}
    for block in blocks(ROOT / "docs" / "writing_models.md", "python"):
        exec(compile(block, "<guide>", "exec"), namespace)
    namespace["lotka_volterra"].bind(np.ones(2))
    namespace["heat"].bind(np.ones(12))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


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
