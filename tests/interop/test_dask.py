"""Ensembles on a Dask cluster of processes: workers that die, clients that close, rows that stay there."""

import os
import signal
import threading

import numpy as np
import pytest

import odec
from odec.distributed import run_scattered
from odec.event import event_kernels
from odec.integrate.batch import Batch
from odec.integrate.ensemble import run_batch
from odec.integrate.problem import Problem
from odec.interop import dask as over_dask
from odec.steppers.methods import method_named

distributed = pytest.importorskip("distributed", reason="needs odec[dask]")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes")
TSIT5 = method_named("tsit5")
turns = 3.0
SYSTEM = odec.dynamics(lambda t, y, rate: [turns * y[1], -rate * np.sin(y[0])]).bind(np.ones(2), (1.0,))
EVENTS = (odec.Event(lambda t, y: y[0] - turns / 10, direction=-1), odec.Event(lambda t, y: y[1], terminal=6))


def batch_of(size, t1=3.0, rows=5, events=EVENTS):
    times = np.linspace(0.0, t1, rows) if rows else np.empty(0)
    problem = Problem((0.0, t1), np.ones(2), np.ones(1), t_eval=times)
    problem.events = event_kernels(SYSTEM, events) if events else None
    return Batch(problem, size, parameters=np.linspace(1.0, 30.0, size)[:, None], columns=np.array([0]))


def scattered(client, batch, reached=None, events=EVENTS, **where):
    return run_scattered(SYSTEM, TSIT5, batch, events, (), client, reached, **where)


def local(batch, system=SYSTEM):
    return run_batch(system.solver(TSIT5), batch, 1)


def assert_same(found, expected):
    """Every array equal to the bit."""
    for name in ("t1", "y1", "status", "steps", "rejected", "nfev", "ys"):
        assert np.asarray(getattr(found, name)).tobytes() == getattr(expected, name).tobytes(), name
    for name in ("member", "event", "t", "y"):
        assert getattr(found.fired, name).tobytes() == getattr(expected.fired, name).tobytes(), name


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as client:
        yield client


def pids(client):
    return set(client.run(os.getpid).values())


def test_workers_give_the_results_of_one_process(client):
    seen, expected = [], local(batch_of(150))  # compiled here first, the code is in the disk cache for the workers
    assert_same(scattered(client, batch_of(150), seen.append), expected)
    assert seen == sorted(set(seen)) and seen[-1] == 150


def test_a_worker_killed_in_mid_run_changes_nothing(client):
    """The chunks that it had go to the other one; which chunks there are may differ, the numbers may not."""
    batch, events = batch_of(2000, 30.0, events=EVENTS[:1]), EVENTS[:1]
    expected, before, killed, seen = local(batch), pids(client), [], []

    def kill(ended):
        seen.append(ended)
        if not killed and ended > 100:  # both are at work on chunks of many
            killed.append(min(before))
            os.kill(killed[0], signal.SIGKILL)

    assert_same(scattered(client, batch, kill, events), expected)
    assert killed and seen == sorted(set(seen)) and seen[-1] == 2000
    client.wait_for_workers(2)
    assert killed[0] not in pids(client)


def test_a_chunk_that_kills_every_worker_is_given_up(monkeypatch):
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        monkeypatch.setattr(over_dask, "solve_part", kill_this_process)
        with pytest.raises(odec.SolveError, match=r"Dask gave up a chunk after 0 of 50 members, for too many workers"):
            scattered(client, batch_of(50))


def kill_this_process(job, part):
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_error_of_a_worker_is_tried_again_and_then_raised(client, monkeypatch, tmp_path):
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setattr(over_dask, "solve_part", Failing(str(calls)))
    with pytest.raises(MemoryError, match="no room"):
        scattered(client, batch_of(1))
    assert len(calls.read_text()) == 1 + over_dask.RETRIES


class Failing:
    """A task that always fails, and leaves a mark each time."""

    def __init__(self, path):
        self.path = path
        self.__name__ = "failing"

    def __call__(self, job, part):
        with open(self.path, "a") as file:
            file.write("x")
        raise MemoryError("no room")


def test_rows_left_on_the_cluster(client):
    import dask.array

    batch, expected = batch_of(150), local(batch_of(150))
    seen = []
    found = scattered(client, batch, seen.append, gather=False)
    assert isinstance(found.ys, dask.array.Array) and found.ys.shape == (150, 5, 2)
    lengths = found.ys.chunks[0]
    assert len(set(lengths[:-1])) == 1 and len(lengths) > 1  # as Zarr needs them
    assert seen[-1] == 150
    assert found.ys[37, 2].compute().tobytes() == expected.ys[37, 2].tobytes()
    assert_same(found, expected)


STRUCTURED = {
    "vector": (lambda t, y, k: [y[1], -k * y[0]], np.array([1.0, 0.0])),
    "matrix": (lambda t, y, k: -k * y, np.ones((2, 3))),
    "tree": (lambda t, y, k: {"q": y["v"], "v": -k * y["q"]}, {"q": 1.0, "v": np.float64(0.0)}),
}


@pytest.mark.filterwarnings("ignore:The data type .FixedLengthUTF32:Warning")  # Zarr's, of names of components
@pytest.mark.parametrize("state", STRUCTURED)
def test_an_ensemble_left_on_the_cluster_is_written_to_zarr(client, tmp_path, state):
    pytest.importorskip("zarr", reason="needs odec[zarr]")
    xarray = pytest.importorskip("xarray", reason="needs odec[xarray]")
    function, y0 = STRUCTURED[state]
    options = dict(params=(np.linspace(1.0, 5.0, 50),), batched="k", t_eval=np.linspace(0.0, 1.0, 4))
    model = odec.dynamics(function)
    here = odec.solve_ensemble(model, (0.0, 1.0), y0, **options)
    there = odec.solve_ensemble(model, (0.0, 1.0), y0, executor=client, gather=False, **options)
    assert repr(there).split(";")[0] == repr(here).split(";")[0]
    assert there[7].ys["q"].tolist() == here[7].ys["q"].tolist() if state == "tree" else True
    data = there.to_xarray()
    assert all(variable.chunks is not None and len(variable.chunks[0]) > 1 for variable in data.data_vars.values())
    data.to_zarr(tmp_path / "ensemble.zarr", consolidated=False)
    with xarray.open_zarr(tmp_path / "ensemble.zarr", consolidated=False) as read:
        xarray.testing.assert_equal(read.drop_attrs(), here.to_xarray().drop_attrs())
        assert read["k"].values.tolist() == options["params"][0].tolist()


def test_members_that_are_not_finite_cannot_be_left_on_the_cluster(client):
    model, y0 = odec.dynamics(lambda t, y: -y), np.array([[1.0], [np.nan]])
    with pytest.raises(odec.ArgumentError, match=r"member 1 are not finite; .* leave gather out"):
        odec.solve_ensemble(model, (0.0, 1.0), y0, batched="y0", t_eval=[1.0], executor=client, gather=False)


def test_ends_are_gathered_where_no_rows_are_kept(client):
    expected = local(batch_of(20, rows=0))
    found = scattered(client, batch_of(20, rows=0), gather=False)
    assert_same(found, expected)


def test_a_large_model_is_sent_without_a_warning(client, monkeypatch):
    import dask

    monkeypatch.setattr(over_dask, "PIECE", 20_000)
    weights = np.random.default_rng(1).normal(size=(100, 100)) / 10
    system = odec.dynamics(lambda t, y: np.tanh(weights @ y) - y).bind(np.ones(100))
    problem = Problem((0.0, 0.1), np.ones(100), np.empty(0), t_eval=np.empty(0))
    batch = Batch(problem, 2, states=np.random.default_rng(2).normal(size=(2, 100)))
    expected = local(batch, system)
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": weights.nbytes}):
        assert_same(run_scattered(system, TSIT5, batch, (), (), client), expected)


def test_workers_that_are_threads():
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0") as client:
        assert_same(scattered(client, batch_of(50)), local(batch_of(50)))


def test_a_client_that_is_closed_is_refused(cluster):
    client = distributed.Client(cluster)
    client.close()
    with pytest.raises(odec.ArgumentError, match=r"the Dask client is closed; connect a new one, Client\(...\)"):
        scattered(client, batch_of(20))


def test_a_client_closed_in_mid_run_is_named(cluster):
    local(batch_of(20))
    client = distributed.Client(cluster)
    with pytest.raises(odec.SolveError, match=r"the Dask client was closed after 8 of 5,000 members; keep it open"):
        scattered(client, batch_of(5000), lambda ended: client.close())


def test_a_client_closed_by_another_thread_is_named(cluster):
    client = distributed.Client(cluster)
    local(batch_of(20, rows=0, events=()))
    timer = threading.Timer(0.5, client.close)
    timer.start()
    with pytest.raises(odec.SolveError, match=r"(client was closed|Dask cancelled the ensemble) after [\d,]+ of"):
        scattered(client, batch_of(200_000, 60.0, rows=0, events=()), events=())
    timer.join()


def test_a_cancelled_ensemble_is_named(client):
    def cancel(ended):
        client.cancel([distributed.Future(key, client) for key in list(client.futures)])

    with pytest.raises(odec.SolveError, match=r"Dask cancelled the ensemble after [\d,]+ of 200,000 members"):
        scattered(client, batch_of(200_000, rows=0, events=()), cancel, events=())


def test_an_asynchronous_client_is_refused(cluster):
    import asyncio

    async def ask():
        async with distributed.Client(cluster.scheduler_address, asynchronous=True) as client:
            scattered(client, batch_of(20))

    with pytest.raises(odec.ArgumentError, match="the Dask client is asynchronous"):
        asyncio.run(ask())


def test_a_cluster_is_no_client(cluster):
    with pytest.raises(odec.ArgumentError, match=r"executor is LocalCluster.*a dask\.distributed\.Client is needed"):
        scattered(cluster, batch_of(20))
