"""What odec raises, and the statuses a compiled solve can end with.

A message reads: where, what was found, what is needed, what to do.
"""

from __future__ import annotations

import enum


class OdecError(Exception):
    """Base of everything odec raises on purpose."""


class TraceError(OdecError, TypeError):
    """The body of a model asked for something that tracing cannot give."""


class MissingRuleError(TraceError):
    """An operation has no record in odec, or its record lacks the rule that is needed."""


class ShapeError(OdecError, ValueError):
    """Shapes or structures that do not fit together."""


class ArgumentError(OdecError, ValueError):
    """An argument whose value cannot be used."""


class LoadError(OdecError, ValueError):
    """A file that is not a model saved by odec."""


class CompileError(OdecError, RuntimeError):
    """A kernel that could not be compiled or loaded."""


class RoomError(OdecError, MemoryError):
    """What was asked for has no room in memory, or on the disk."""


class SolveError(OdecError, RuntimeError):
    """A solve that stopped before the end of its time span; `.solution` holds what was reached."""

    def __init__(self, message, solution=None):
        super().__init__(message)
        self.solution = solution

    def __reduce__(self):
        return type(self), (self.args[0], self.solution)


class Status(enum.IntEnum):
    """How a solve ended; `.sentence` says it in words."""

    SUCCESS = 0
    RUNNING = 1
    STEP_LIMIT = 2
    STEP_UNDERFLOW = 3
    NON_FINITE = 4
    INTERRUPTED = 5
    NON_FINITE_START = 6
    TERMINATED = 7
    CHATTERING = 8

    @property
    def sentence(self):
        """How it ended, in words."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.SUCCESS: "reached the end of the time span",
    Status.RUNNING: "still running",
    Status.STEP_LIMIT: "took max_steps steps without reaching the end",
    Status.STEP_UNDERFLOW: "the step size fell below the resolution of time",
    Status.NON_FINITE: "the right-hand side became non-finite however small the step",
    Status.INTERRUPTED: "interrupted from the keyboard",
    Status.NON_FINITE_START: "the right-hand side is not finite at the start",
    Status.TERMINATED: "a terminal event ended the solve",
    Status.CHATTERING: "an event kept resetting the state without time moving on",
}


def nearest(word, words):
    """'; did you mean a or b?' for the known words that resemble `word`, else '.': the end of a sentence."""
    import difflib

    known = {str(w).lower(): str(w) for w in words}
    close = difflib.get_close_matches(str(word).lower(), list(known), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(known[w]) for w in close)}?" if close else "."


def counted(number, noun):
    """'1 parameter', '2 parameters'."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
