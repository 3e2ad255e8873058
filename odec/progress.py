"""A progress bar over the time span of a solve."""

from __future__ import annotations


def with_progress(run, problem, name):
    """run(problem), with a bar that follows the time reached at the loop's pauses.

    Raises
    ------
    ImportError : tqdm is missing
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True needs tqdm; install odec[progress].") from None
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
