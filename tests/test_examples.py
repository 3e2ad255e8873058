"""Every example runs and saves its picture: those that train for long for a few steps, .ci/run runs them in full."""

import os
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_runs(path, tmp_path, monkeypatch, capsys):
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    monkeypatch.setitem(os.environ, "MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "argv", [str(copy), "--quick"])
    runpy.run_path(str(copy), run_name="__main__")
    out = capsys.readouterr().out
    if out.startswith("skipped: "):
        pytest.skip(out)
    assert "saved" in out
    assert copy.with_suffix(".png").stat().st_size > 10_000
