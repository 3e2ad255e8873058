"""Ensembles on the workers of a Dask cluster, and their rows left there."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from dataclasses import replace

from odec.chunks import Chunks, EvenChunks, even_length, most_members
from odec.distributed import collected
from odec.errors import ArgumentError, OdecError, SolveError, counted
from odec.job import Packed, solve_part

RETRIES = 2  # of a chunk that failed, as for want of memory; those of dead workers are the scheduler's to count
PIECE = 4 << 20  # bytes of a model that are sent at once: Dask warns of more than 10 MB
LEFT_BYTES = 64 << 20  # of the rows of a chunk that stays on the cluster
ASK_SECONDS = 1.0  # between questions of how many workers there are


class ClientPool:
    """A dask.distributed.Client, as `collected` uses it.

    packed : Packed; a task of its own on the cluster, so that each worker fetches it once, and it is made again if
        its worker dies

    Raises
    ------
    ArgumentError : a client that is closed or asynchronous
    """

    def __init__(self, client, packed, name):
        self._client, self.name = client, name
        self._asked, self._workers = -ASK_SECONDS, 1
        if client.asynchronous:
            raise ArgumentError(
                f"{name}: the Dask client is asynchronous, and an ensemble waits for its members; use a Client(...) "
                "without asynchronous=True."
            )
        if client.status != "running":
            raise ArgumentError(f"{name}: the Dask client is {client.status}; connect a new one, Client(...).")
        pieces = [packed.data[k : k + PIECE] for k in range(0, len(packed.data), PIECE)]
        there = [client.submit(_piece, piece, pure=False) for piece in pieces]
        self._job = client.submit(_whole, packed.digest, *there, pure=False)

    @property
    def workers(self):
        """How many chunks run at the same time: the threads of all workers, 1 while none has come."""
        if time.monotonic() - self._asked >= ASK_SECONDS:
            self._workers, self._asked = sum(self._client.nthreads().values()) or 1, time.monotonic()
        return self._workers

    def submit(self, part):
        """A future of `solve_part`."""
        return self._client.submit(solve_part, self._job, part, pure=False, retries=RETRIES)

    def check(self):
        """CancelledError where the client has been closed."""
        if self._closed:
            raise CancelledError(f"the client is {self._client.status}")

    @property
    def _closed(self):
        return self._client.status in ("closing", "closed")

    def cancel(self, futures):
        """Cancel what has not ended; a client that is closed has done so."""
        if not self._closed:
            self._client.cancel(list(futures))

    def explained(self, error, ended, size):
        """The error to raise for one that Dask raised when `ended` of all members had ended."""
        from distributed import KilledWorker

        so_far = f"after {ended:,} of {counted(size, 'member')}"
        if isinstance(error, KilledWorker):
            return SolveError(
                f"{self.name}: Dask gave up a chunk {so_far}, for too many workers died while they ran it; see the "
                "workers' logs, and give them more memory if it was short."
            )
        if self._closed:
            return SolveError(
                f"{self.name}: the Dask client was closed {so_far}; keep it open until the ensemble returns."
            )
        if isinstance(error, CancelledError):
            return SolveError(f"{self.name}: Dask cancelled the ensemble {so_far}; solve it again. Its reason: {error}")
        if isinstance(error, ModuleNotFoundError) and error.name == "odec":
            return OdecError(f"{self.name}: the Dask workers have no odec; install the version that this process has.")
        return error


class LeavingPool(ClientPool):
    """A ClientPool whose chunks leave their rows on the cluster: `left` are futures of them, in order."""

    def __init__(self, client, packed, name):
        super().__init__(client, packed, name)
        self.left = []

    def submit(self, part):
        """A future of `solve_part` without the rows."""
        whole = super().submit(part)
        self.left.append(self._client.submit(_rows, whole, pure=False))
        return self._client.submit(_without_rows, whole, pure=False)


def left_on_cluster(client, packed, name, batch, least, reached=None):
    """The Results of a Batch, with `ys` a dask.array (size, rows, n) of what stays on the workers.

    The first members are solved once more, ahead of all, to learn how long a chunk should be.
    """
    pool = LeavingPool(client, packed, name)
    chunks = EvenChunks(batch.size, _even_length(ClientPool(client, packed, name), batch, least))
    results = collected(pool, batch, chunks, reached)
    results.ys = _joined(pool.left, chunks, (batch.rows, *results.y1.shape[1:]), results.y1.dtype)
    return results


def _even_length(pool, batch, least):
    pilot = Chunks(min(least, batch.size), least)
    collected(pool, batch.part(0, pilot.size), pilot)
    return even_length(batch.size, pool.workers, pilot.pace, most_members(batch, output_bytes=LEFT_BYTES), least)


def _joined(futures, chunks, shape, dtype):
    import dask.array

    pairs = zip(futures, chunks.lengths, strict=True)
    return dask.array.concatenate([dask.array.from_delayed(f, (length, *shape), dtype) for f, length in pairs])


def _piece(data):
    return data


def _whole(digest, *pieces):
    return Packed(digest, b"".join(pieces))


def _rows(solved):
    return solved[0].ys


def _without_rows(solved):
    results, seconds = solved
    return replace(results, ys=None), seconds
