"""The few things the loop does that plain Python and machine code write differently.

These are the Python meanings; numba_bridge.py gives the compiled ones.
"""

from __future__ import annotations


def call_kernel(kernel, *buffers):
    """Run a kernel: in machine code `kernel` is its address, in Python a function."""
    kernel(*buffers)


def offset(buffer, start):
    """The buffer from element `start` on."""
    return buffer[start:]


def take(counter):
    """The number that a counter holds, which then holds the next: no two threads get the same."""
    number = counter[0]
    counter[0] = number + 1
    return number
