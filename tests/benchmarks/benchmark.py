"""What benchmarks share: a table's rows, runs in turn, peers behind pipes, the command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


def row(case, goal, measured, peer=""):
    print(f"| {case} | {goal} | {measured} | {peer} |", flush=True)


def milliseconds(seconds):
    return f"{seconds * 1e3:.2f} ms"


REST = 0.05  # seconds before a run, in which the threads of the one before stop waiting for more work


def alternating(runs, rounds):
    """{name: median of what run() returns} over rounds in which every run has its turn, after one turn each."""
    found = {name: [] for name in runs}
    for k in range(rounds + 1):
        for name, run in runs.items():
            time.sleep(REST)
            seconds = run()
            if k:
                found[name].append(seconds)
    return {name: statistics.median(times) for name, times in found.items()}


def timed(call, calls=1):
    """A run that returns the seconds of a call, the median of so many one after another."""

    def once():
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return lambda: statistics.median(once() for _ in range(calls))


@dataclass
class Peer:
    """A library in another Python, behind a script that answers JSON with JSON; `codes` are what it runs."""

    process: subprocess.Popen
    codes: tuple[str, ...]

    def ask(self, **request):
        """The answer to a request."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextlib.contextmanager
def running_peers(python, script, libraries, *arguments):
    """The Peers whose libraries the Python has; none where it is None. Each is `script LIBRARY *arguments`."""
    path, peers = str(Path(__file__).with_name(script)), []
    with contextlib.ExitStack() as stack:
        for library in libraries if python else ():
            command = [python, path, library, *arguments]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.communicate)
            first = process.stdout.readline() if process.stdout else ""
            if first:
                peers.append(Peer(process, tuple(json.loads(first)["codes"])))
            else:
                print(f"    {library} does not run in {python}", flush=True)
        yield peers


def compiled_limits(source):
    """The program of a C file."""
    binary = str(Path(tempfile.mkdtemp()) / "limits")
    subprocess.run(["gcc", "-O3", "-march=native", "-ffast-math", source, "-o", binary, "-lm"], check=True)
    return binary


def command_line(cases, options=()):
    """Run those of the cases, {name: function of the arguments}, that the command line names, or all.

    options : names of further options that take a word
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(cases)}")
    for option in ("--peers", *options):
        parser.add_argument(option)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    for case in arguments.cases:
        if case not in cases:
            parser.error(f"case {case!r} is not known; it is one of {', '.join(cases)}")
    print("| case | goal | measured | peer |\n|---|---|---|---|")
    for case in arguments.cases or cases:
        cases[case](arguments)
