"""The disk cache of object code: private to the user, safe under concurrent processes, never trusted.

An entry holds machine code, so a directory or a file that someone else could have written is not used.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import stat
import sys
import tempfile
import warnings
from pathlib import Path

MAGIC = b"odec object code 1\n"
SUFFIX = ".odec"
UNFINISHED = ".new-"
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # neither a link nor a wait for a pipe


def directory():
    """Where entries live: ODEC_CACHE_DIR, else `odec` in the user's cache folder; None for a user without a home."""
    chosen, environment = os.environ.get("ODEC_CACHE_DIR"), os.environ
    try:
        if chosen:
            return Path(chosen).expanduser()
        if sys.platform == "win32":
            return Path(environment.get("LOCALAPPDATA", "~")).expanduser() / "odec" / "cache"
        if sys.platform == "darwin":
            return Path("~/Library/Caches/odec").expanduser()
        return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "odec"
    except RuntimeError:
        return None


@functools.cache
def odec_fingerprint():
    """A hash of odec's own sources and of the compilers' versions: code from others is never run."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256(_version_of("llvmlite") + _version_of("numba"))
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _version_of(package):
    """The file that states a package's version: importing Numba, or importlib.metadata, takes too long."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin if spec and spec.origin else "").with_name("_version.py")
    return path.read_bytes() if path.is_file() else b""


def read(stamp):
    """(record, object code) stored for a stamp, or None: absent, damaged, or not ours alone."""
    folder = _usable(directory(), create=False)
    if folder is None:
        return None
    try:
        handle = os.open(folder / _file_name(stamp), os.O_RDONLY | _NO_FOLLOW)
        with os.fdopen(handle, "rb") as file:
            if not _is_private(os.fstat(file.fileno())):
                _warn_once(f"{folder}: cache entries that others can write are not used; run `odec cache --clear`")
                return None
            return _parsed(file.read(), stamp)
    except OSError:
        return None


def write(stamp, record, code):
    """Store an entry; a cache that cannot be written is said once and done without."""
    folder = _usable(directory(), create=True)
    if folder is None:
        return
    body = json.dumps({"stamp": stamp, "record": record, "size": len(code)}).encode() + b"\n" + code
    data = MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=UNFINISHED, delete=False) as file:
            temporary = file.name
            file.write(data)
        os.replace(temporary, folder / _file_name(stamp))  # atomic: readers see the old entry or the new one
    except OSError as error:
        _warn_once(
            f"the cache {folder} cannot be written ({error.strerror}), so every process will compile anew; "
            "set ODEC_CACHE_DIR to a folder of your own"
        )
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def entries():
    """[(path, bytes)] of what is stored."""
    folder = directory()
    if folder is None or not folder.is_dir():
        return []
    return [(path, path.stat().st_size) for path in sorted(folder.glob(f"*{SUFFIX}"))]


def clear():
    """Delete every entry, and what killed processes left; how many entries there were."""
    folder, found = directory(), entries()
    left = [] if folder is None else folder.glob(f"{UNFINISHED}*")
    for path in (*(path for path, _ in found), *left):
        with contextlib.suppress(OSError):
            path.unlink()
    return len(found)


def _file_name(stamp):
    return hashlib.sha256(stamp.encode()).hexdigest()[:40] + SUFFIX


def _parsed(data, stamp):
    try:
        magic, digest, body = data[: len(MAGIC)], *data[len(MAGIC) :].split(b"\n", 1)
        if magic != MAGIC or hashlib.sha256(body).hexdigest().encode() != digest:
            return None
        head, code = body.split(b"\n", 1)
        fields = json.loads(head)
        if fields["stamp"] != stamp or fields["size"] != len(code):
            return None
        return fields["record"], code
    except (ValueError, KeyError, TypeError):
        return None


def _usable(folder, create):
    """The folder if it is there (or can be made), ours, and closed to other writers; else None."""
    if folder is None:
        if create:
            _warn_once("there is no home folder for a cache, so every process will compile anew; set ODEC_CACHE_DIR")
        return None
    try:
        if create:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.stat(folder)
    except OSError as error:
        if create:
            _warn_once(
                f"the cache {folder} cannot be made ({error.strerror}), so every process will compile anew; "
                "set ODEC_CACHE_DIR to a folder of your own"
            )
        return None
    if not stat.S_ISDIR(status.st_mode) or not _is_private(status):
        _warn_once(
            f"the cache {folder} is no folder that only you can write to, so it is not used and every process will "
            "compile anew; set ODEC_CACHE_DIR to a folder of your own, or take others' permission to write away"
        )
        return None
    return folder


def _is_private(status):
    if not hasattr(os, "getuid"):  # Windows: the user's profile folder is private by its own rules
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


_said: set[str] = set()


def _warn_once(text):
    if text not in _said:
        _said.add(text)
        warnings.warn(f"odec: {text}", RuntimeWarning, stacklevel=3)
