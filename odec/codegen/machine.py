"""The few things the loop does that plain Python and machine code write differently.

These are the Python meanings; numba_bridge.py gives the compiled ones.
"""

from __future__ import annotations

import numpy as np


def call_kernel(kernel, *buffers):
    """Run a kernel: in machine code `kernel` is its address, in Python a function."""
    kernel(*buffers)


def offset(buffer, start):
    """The buffer from element `start` on."""
    return buffer[start:]


def bits(x):
    """The 64 bits of a float64 as an integer."""
    return int(np.float64(x).view(np.int64))


def from_bits(i):
    """The float64 with these 64 bits."""
    return float(np.int64(i).view(np.float64))
