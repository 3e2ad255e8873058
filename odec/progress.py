"""A progress bar over the time span of a solve."""

from __future__ import annotations

import contextlib


@contextlib.contextmanager
def progress_bar(name, t0, t1):
    """Show a bar while the block runs; gives a function to call with the time reached.

    Raises
    ------
    ImportError : tqdm is missing
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True needs tqdm; install odec[progress].") from None
    shape = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
    with tqdm(total=1.0, desc=f"{name}, t = {t0:.6g}", bar_format=shape) as bar:

        def reached(t):
            bar.set_description_str(f"{name}, t = {t:.6g}", refresh=False)
            bar.update((t - t0) / (t1 - t0) - bar.n)

        yield reached
        reached(t1)
