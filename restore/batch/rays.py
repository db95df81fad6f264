"""Ray Data does a run's jobs: actors load the model once, and put their results in place alone.

Each returns the rows of what it did. What dies is Ray's to start again; what an actor had done by
then is known by the note that it left, so that nothing is done or told twice.
"""

import logging
import os
import pickle  # what goes to our own workers and comes back: tables would make all rows alike
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any

from restore.batch.jobs import Job
from restore.batch.journal import Journal
from restore.batch.models import Loading
from restore.batch.orders import Orders, Worker
from restore.batch.rows import Row
from restore.batch.runner import Offered
from restore.batch.table import Table
from restore.errors import ModelError, RestoreError, UsageError

FEW = 8  # files that an actor is told of at a time, and that are tried anew where it dies
MANY = 50_000  # files that Ray is told of at a time, so that a list of any length has its place
DEATHS = 3  # of actors in a row before they have a model: then it is not chance
MISSING = "--runner ray: ray is missing; pip install 'restore-toolkit[ray]'"


@dataclass(frozen=True)
class Cluster:
    """Where Ray does the work.

    workers  each with a model.
    address  of a cluster that is there; empty: one of this machine alone, for this run.
    cpus     cores that each worker is counted for.
    gpus     of each worker.
    """

    workers: int = 1
    address: str = ""
    cpus: float = 1
    gpus: float = 0


class Silent:
    """Looks on from a machine where nobody does."""

    def row(self, row: Row) -> None: ...

    def note(self, text: str) -> None: ...

    def part(self, done: int, of: int, what: str) -> None: ...


class Actor:
    """A worker as Ray calls it: with a batch of jobs, for a batch of rows."""

    def __init__(self, orders: Orders, loading: Loading):
        self.worker = Worker(orders, loading, Silent())
        self.store = orders.settings.place.store

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        asked: list[tuple[Job, list[Row]]] = [pickle.loads(data) for data in batch["job"]]
        answers = []
        for nth, (job, known) in enumerate(asked):
            following = asked[nth + 1][0] if nth + 1 < len(asked) else None
            noted = self.store.noted(job.key)  # by an actor that died since
            try:
                answers.append(self.worker(job, [*known, *noted], following, self.store.note))
            except RestoreError as error:  # the run's: it must not be tried again and again
                answers.append(error)
        return {"nth": list(batch["nth"]), "answer": [pickle.dumps(one) for one in answers]}


@dataclass(frozen=True)
class Rays:
    """Does jobs with Ray Data. Retries, dead workers and stragglers are Ray's to see to."""

    orders: Orders
    loading: Loading
    cluster: Cluster

    def __call__(self, offered: Offered, journal: Journal) -> Iterator[tuple[Job, Row]]:
        with connected(self.cluster), Table(journal) as table:
            while jobs := list(islice(offered, MANY)):
                yield from self._do(jobs, offered, journal, table)

    def _do(
        self, jobs: list[Job], offered: Offered, journal: Journal, table: Table
    ) -> Iterator[tuple[Job, Row]]:
        import ray

        asked = [
            {"nth": nth, "job": pickle.dumps((job, journal.about(job)))}
            for nth, job in enumerate(jobs)
        ]
        blocks = max(1, -(-len(jobs) // FEW))
        answers = ray.data.from_items(asked, override_num_blocks=blocks).map_batches(
            Actor,
            batch_size=None,  # a block at a time
            fn_constructor_args=(self.orders, self.loading),
            compute=ray.data.ActorPoolStrategy(size=self.cluster.workers),
            num_cpus=self.cluster.cpus,
            num_gpus=self.cluster.gpus,
        )
        for given in answers.iter_rows():
            answer = pickle.loads(given["answer"])
            if isinstance(answer, RestoreError):
                raise answer
            if answer["status"] == "done" and "finished" not in answer:
                journal.add(answer)
            table.add(answer)
            yield jobs[given["nth"]], answer
            if offered.is_over():
                return


def require() -> None:
    """Raise UsageError if ray is missing."""
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise UsageError(MISSING)


@contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """Ray, started here on the loopback alone, or the cluster at an address.

    Raises ModelError if the cluster is not there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of this run
    import ray
    from ray.data import DataContext

    if ray.is_initialized():  # by whoever called us: it is theirs to end
        yield
        return
    told: dict[str, Any] = (
        {"address": cluster.address}
        if cluster.address
        else {
            "address": "local",
            "num_cpus": max(1, round(cluster.workers * cluster.cpus)) + 1,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    )
    try:
        ray.init(**told, log_to_driver=False, logging_level="error")
    except Exception as error:  # it raises some of no class of their own
        why = f"no cluster there: {error}" if cluster.address else str(error)
        raise ModelError(f"--runner ray {cluster.address}: {why}") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it has a file of its own for them
    context = DataContext.get_current()
    context.enable_progress_bars = False  # the run has its own
    context.max_consecutive_actor_init_deaths = DEATHS
    try:
        yield
    finally:
        ray.shutdown()
