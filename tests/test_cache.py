"""The disk cache: used by later processes, rebuilt when damaged, done without when it cannot be, never trusted."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings

import pytest

from odec.codegen import cache
from odec.codegen.cache import MAGIC, SUFFIX

SCRIPT = """
import json, sys, warnings
import odec
{before}
@odec.dynamics
def lotka(t, y, a=1.5):
    return [a * y[0] - y[0] * y[1], y[0] * y[1] - {rate} * y[1]]

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    sol = odec.solve(lotka, (0.0, 5.0), [1.0, 1.0])
    odec.solve(lotka, (0.0, 5.0), [2.0, 1.0], method="dopri5")
print(json.dumps({{
    "ys": sol.ys.tobytes().hex(), "numba": "numba" in sys.modules, "compiled": globals().get("compiled", []),
    "warnings": [str(w.message) for w in caught],
    "late": sol.stats["solve_seconds"] > 0.5 * sol.stats["compile_seconds"],
}}))
"""
NOTED = """
compiled = []
import odec.codegen.compile as compiling
object_code = compiling.object_code
compiling.object_code = lambda text, **how: compiled.append(len(text)) or object_code(text, **how)
"""
FULL = """
import errno, tempfile
def full(*args, **kwargs):
    raise OSError(errno.{code}, "{text}")
tempfile.NamedTemporaryFile = full
"""


def start(folder, rate=3.0, before=NOTED):
    environment = {**os.environ, "ODEC_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(rate=rate, before=before)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


def solve(folder, **options):
    return finish(start(folder, **options))


def files(folder):
    return sorted(p for p in folder.iterdir() if p.suffix == SUFFIX)


def kernels_in(folder):
    """The entries but for the loop's, which takes seconds to compile."""
    return [p for p in files(folder) if b'"stamp": "loop' not in p.read_bytes()[:200]]


@pytest.fixture(scope="session")
def warm(tmp_path_factory):
    """A cache that one process has filled, and what that process found."""
    folder = tmp_path_factory.mktemp("cache") / "made" / "here"
    return folder, solve(folder)


@pytest.fixture
def copy(warm, tmp_path):
    """A private copy of the warm cache."""
    folder = tmp_path / "cache"
    shutil.copytree(warm[0], folder)
    folder.chmod(0o700)
    return folder


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An empty cache for this process."""
    monkeypatch.setenv("ODEC_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setattr(cache, "_said", set())
    return tmp_path / "own"


# ---- whole processes -----------------------------------------------------------------------------------------


def test_first_process_fills_a_private_folder(warm):
    folder, first = warm
    assert first["warnings"] == [] and len(first["compiled"]) >= 3 and first["numba"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(p.stat().st_mode & 0o077 == 0 for p in files(folder))
    assert {p.suffix for p in folder.iterdir()} == {SUFFIX}  # nothing unfinished is left


def test_all_compiling_is_counted_as_compiling(warm):
    assert not warm[1]["late"]


def test_second_process_compiles_nothing_and_imports_no_numba(warm, copy):
    before = {p.name: p.stat().st_mtime_ns for p in files(copy)}
    second = solve(copy)
    assert second == {"ys": warm[1]["ys"], "numba": False, "compiled": [], "warnings": [], "late": False}
    assert {p.name: p.stat().st_mtime_ns for p in files(copy)} == before


def test_another_model_needs_only_its_own_kernels(copy):
    other = solve(copy, rate=2.5)
    assert not other["numba"] and 0 < len(other["compiled"]) <= 3


def test_damaged_entries_are_rebuilt(warm, copy):
    for i, path in enumerate(files(copy)):
        data = path.read_bytes()
        path.write_bytes([data[: len(data) // 2], b"", data[:-1] + bytes([data[-1] ^ 1]), b"\0" * len(data)][i % 4])
    again = solve(copy)
    assert again["ys"] == warm[1]["ys"] and again["warnings"] == [] and again["numba"]
    assert solve(copy)["compiled"] == []


def test_entries_of_other_keys_are_not_run(warm, copy):
    """Files hold another's whole content: valid, but foreign."""
    paths = kernels_in(copy)
    contents = [p.read_bytes() for p in paths]
    for path, data in zip(paths, [*contents[1:], contents[0]]):
        path.write_bytes(data)
    again = solve(copy)
    assert again["ys"] == warm[1]["ys"] and len(again["compiled"]) == len(paths) >= 3 and not again["numba"]


def test_processes_at_the_same_time_on_a_cache_without_their_kernels(warm, copy):
    """Each writes every kernel, in the way in which it would write the loop."""
    missing = kernels_in(copy)
    for path in missing:
        path.unlink()
    results = [finish(p) for p in [start(copy) for _ in range(4)]]
    assert {r["ys"] for r in results} == {warm[1]["ys"]} and all(r["warnings"] == [] for r in results)
    assert sum(len(r["compiled"]) for r in results) >= len(missing) >= 3 and not any(r["numba"] for r in results)
    assert len(files(copy)) == len(files(warm[0])) == len(list(copy.iterdir()))
    assert solve(copy)["compiled"] == []


@pytest.mark.parametrize(("code", "text"), [("ENOSPC", "No space left on device"), ("EROFS", "Read-only file system")])
def test_a_cache_that_cannot_be_written_is_said_once(warm, copy, code, text):
    """The loop is there; the kernels of another model cannot be stored."""
    result = solve(copy, rate=2.25, before=NOTED + FULL.format(code=code, text=text))
    (warning,) = result["warnings"]
    assert text in warning and str(copy) in warning and "ODEC_CACHE_DIR" in warning
    assert result["compiled"] and {p.suffix for p in copy.iterdir()} == {SUFFIX}
    assert solve(copy, before=NOTED + FULL.format(code=code, text=text))["warnings"] == []  # reading needs no room


def test_a_folder_that_others_can_write_to_is_not_used(warm, copy):
    copy.chmod(0o777)
    before = {p.name: p.stat().st_mtime_ns for p in files(copy)}
    result = solve(copy)
    (warning,) = result["warnings"]
    assert str(copy) in warning and "only you can write" in warning and "ODEC_CACHE_DIR" in warning
    assert result["ys"] == warm[1]["ys"] and len(result["compiled"]) == len(warm[1]["compiled"])
    assert {p.name: p.stat().st_mtime_ns for p in files(copy)} == before


# ---- one process, entry by entry ------------------------------------------------------------------------------


def only_warning(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
        action()
    (warning,) = caught
    assert warning.category is RuntimeWarning and str(warning.message).startswith("odec: ")
    return result, str(warning.message)


def test_what_is_written_is_read(own):
    cache.write("key", {"kernels": [1, 2]}, b"\0code\n\xff")
    assert cache.read("key") == ({"kernels": [1, 2]}, b"\0code\n\xff")
    assert cache.read("other") is None
    cache.write("key", {}, b"new")
    assert cache.read("key") == ({}, b"new") and len(cache.entries()) == 1


def test_any_damage_is_noticed(own):
    cache.write("key", {"kernels": []}, b"some code")
    (path,) = files(own)
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place])
        assert cache.read("key") is None
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        assert cache.read("key") is None
    for other in (b"", MAGIC, MAGIC + b"\n", data + b"x", b"odec object code 0\n" + data[len(MAGIC) :]):
        path.write_bytes(other)
        assert cache.read("key") is None
    path.write_bytes(data)
    assert cache.read("key") is not None


def test_entries_that_others_can_write_are_not_used(own):
    cache.write("key", {}, b"code")
    (path,) = files(own)
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        cache._said.clear()
        found, message = only_warning(lambda: cache.read("key"))
        assert found is None and "others can write" in message and "odec cache --clear" in message


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give files away")
def test_folders_and_entries_of_another_user_are_not_used(own):
    cache.write("key", {}, b"code")
    (path,) = files(own)
    os.chown(path, 65534, 65534)
    assert only_warning(lambda: cache.read("key"))[0] is None
    os.chown(path, 0, 0)
    os.chown(own, 65534, 65534)
    cache._said.clear()
    assert "only you can write" in only_warning(lambda: cache.read("key"))[1]


def test_links_pipes_and_folders_are_no_entries(own, tmp_path):
    cache.write("key", {}, b"code")
    (path,) = files(own)
    real = tmp_path / "elsewhere"
    path.rename(real)
    path.symlink_to(real)
    assert cache.read("key") is None
    path.unlink()
    path.mkdir()
    assert cache.read("key") is None
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert cache.read("key") is None


def test_a_file_in_the_place_of_the_folder(own):
    own.write_text("mine")
    _, message = only_warning(lambda: cache.write("key", {}, b"code"))
    assert str(own) in message and own.read_text() == "mine" and cache.entries() == []


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cache, "_said", set())
    monkeypatch.setenv("ODEC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    _, message = only_warning(lambda: cache.write("key", {}, b"code"))
    assert "cannot be made (Not a directory)" in message and "ODEC_CACHE_DIR" in message
    assert cache.read("key") is None


def test_a_full_disk_leaves_no_half_entry(own, monkeypatch):
    cache.write("key", {}, b"old")

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    real = tempfile.NamedTemporaryFile

    def opened(*args, **kwargs):
        file = real(*args, **kwargs)
        file.write = full.__get__(file)
        return file

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", opened)
    _, message = only_warning(lambda: cache.write("key", {}, b"new"))
    assert "No space left" in message
    assert cache.read("key") == ({}, b"old") and len(list(own.iterdir())) == 1


def test_a_rename_that_fails_leaves_no_half_entry(own, monkeypatch):
    def refused(source, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    only_warning(lambda: cache.write("key", {}, b"new"))
    assert list(own.iterdir()) == []


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ODEC_CACHE_DIR", str(tmp_path / "a"))
    assert cache.directory() == tmp_path / "a"
    monkeypatch.setenv("ODEC_CACHE_DIR", "~/b")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.directory() == tmp_path / "b"
    if sys.platform.startswith("linux"):
        monkeypatch.delenv("ODEC_CACHE_DIR")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache.directory() == tmp_path / "xdg" / "odec"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache.directory() == tmp_path / ".cache" / "odec"


def test_a_user_without_a_home_does_without(monkeypatch):
    monkeypatch.delenv("ODEC_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name/cache")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(cache, "_said", set())
    assert cache.directory() is None and cache.read("key") is None
    assert "ODEC_CACHE_DIR" in only_warning(lambda: cache.write("key", {}, b"code"))[1]
    assert cache.entries() == [] and cache.clear() == 0


def test_clear_deletes_entries_and_what_was_left_unfinished(own):
    for key in "abc":
        cache.write(key, {}, b"code")
    (own / ".new-left").write_bytes(b"half")
    (own / "notes.txt").write_text("not ours")
    assert cache.clear() == 3 and [p.name for p in own.iterdir()] == ["notes.txt"]


def test_code_of_other_sources_or_compilers_has_another_key(tmp_path, monkeypatch):
    """The fingerprint follows every source file of odec, its place, and the compilers' versions."""
    package = tmp_path / "odec"
    shutil.copytree(os.path.dirname(os.path.dirname(cache.__file__)), package)

    def fingerprint():
        monkeypatch.setattr(cache, "__file__", str(package / "codegen" / "cache.py"))
        return cache.odec_fingerprint.__wrapped__()

    assert fingerprint() == cache.odec_fingerprint.__wrapped__()
    before = fingerprint()
    (package / "ops" / "new.py").write_text("x = 1\n")
    after = fingerprint()
    (package / "ops" / "new.py").rename(package / "graph" / "new.py")
    moved = fingerprint()
    monkeypatch.setattr(cache, "_version_of", lambda package: b"0")
    assert len({before, after, moved, fingerprint()}) == 4
