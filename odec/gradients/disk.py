"""Vectors in files: what a solve records, on disk in place of memory."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile

import numpy as np

from odec.errors import ArgumentError, RoomError

ZEROS = 2**20  # bytes written at once where a file cannot be lengthened otherwise


class Disk:
    """Vectors by name, each in a temporary file of a folder, which grow in place.

    A file has no name where the system allows that; it is gone with its last vector, at the latest with the process.
    Vectors outlive the `with` block of the Disk, but grow no more. Blocks of a file are taken before they are written
    to, for a mapped page without one ends the process without a word.

    folder : a path; None is the system's folder for temporary files

    Raises
    ------
    ArgumentError : no file can be made there
    """

    def __init__(self, folder=None):
        self.folder = tempfile.gettempdir() if folder is None else os.fspath(folder)
        self._new_file = functools.partial(tempfile.TemporaryFile, dir=self.folder)
        self._files, self._open = {}, contextlib.ExitStack()
        try:
            self._new_file().close()
        except OSError as error:
            raise ArgumentError(
                f"solve_vjp: checkpoints is the folder {self.folder}, in which no file can be made "
                f"({error.strerror}); name a folder that is there and can be written to."
            ) from None

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self._open.close()

    def vector(self, name, size, dtype):
        """The vector of a name with another number of elements, of which those it had stay as they are.

        Raises
        ------
        RoomError : the disk is full
        """
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = self._open.enter_context(self._new_file())
        held, needed = os.fstat(file.fileno()).st_size, size * np.dtype(dtype).itemsize
        try:
            if needed > held:
                getattr(os, "posix_fallocate", write_zeros)(file.fileno(), held, needed - held)
        except OSError as error:
            raise RoomError(
                f"solve_vjp: recorded steps take {needed:,} bytes, for which {self.folder} has no room "
                f"({error.strerror}); name the folder of a larger disk, as checkpoints=pathlib.Path(...), or give a "
                "number, as checkpoints=64."
            ) from None
        return np.memmap(file, dtype, "r+", shape=(size,))


def write_zeros(number, start, more):
    """Lengthen the file of a descriptor, `start` bytes long, by so many bytes, each of them on the disk."""
    os.lseek(number, start, os.SEEK_SET)
    while more > 0:
        more -= os.write(number, bytes(min(more, ZEROS)))
