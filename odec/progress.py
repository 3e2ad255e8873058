"""Progress bars: over the time span of a solve, over the members of an ensemble."""

from __future__ import annotations

import contextlib


def with_progress(run, problem, name):
    """run(problem), with a bar that follows the time reached at the loop's pauses.

    Raises
    ------
    ImportError : tqdm is missing
    """
    tqdm = _tqdm()
    t0, t1 = problem.span
    shape = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
    with tqdm(total=1.0, desc=f"{name}, t = {t0:.6g}", bar_format=shape) as bar:

        def reached(t):
            bar.set_description_str(f"{name}, t = {t:.6g}", refresh=False)
            bar.update((t - t0) / (t1 - t0) - bar.n)

        problem.pause = reached
        outcome = run(problem)
        reached(outcome.t)
    return outcome


@contextlib.contextmanager
def ensemble_bar(name, size):
    """A bar over the members of an ensemble, with their rate and the expected end, as a context; gives a function to
    call with how many have ended.

    Raises
    ------
    ImportError : tqdm is missing
    """
    shape = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
    with _tqdm()(total=size, desc=name, unit=" trajectories", unit_scale=True, bar_format=shape) as bar:
        yield lambda ended: bar.update(ended - bar.n)


def _tqdm():
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True needs tqdm; install odec[progress].") from None
    return tqdm
