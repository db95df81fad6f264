"""Ray Data does a run's jobs: each actor loads the model once, and writes its results itself.

An actor returns the rows of its jobs. Ray replaces an actor that dies. The actor has left a note of
each result, so that no job is done or reported twice.
"""

import logging
import os
import pickle  # between our own processes only; a table would give all rows one schema
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any

from restore.batch.jobs import Job
from restore.batch.journal import Journal
from restore.batch.models import PinnedModel
from restore.batch.rows import Row
from restore.batch.runner import Offered
from restore.batch.table import Table
from restore.batch.worker import RunSpec, Worker
from restore.errors import ModelError, RestoreError, UsageError

FEW = 8  # files in a batch for an actor; if it dies, the batch is tried again
MANY = 10_000  # files that Ray gets at a time, so that a list of any length fits in memory
DEATHS = 3  # of actors in a row before they have a model: then the run stops
MISSING = "--runner ray: ray is missing; pip install 'restore-toolkit[ray]'"


@dataclass(frozen=True)
class Cluster:
    """Where Ray does the work.

    Attributes:
        workers: Their number; each loads a model.
        address: Of a running cluster; empty: Ray starts on this machine, for this run only.
        cpus: Cores that Ray reserves for each worker.
        gpus: GPUs that Ray reserves for each worker; 0.5: two workers share one.
    """

    workers: int = 1
    address: str = ""
    cpus: float = 1
    gpus: float = 0


class Silent:
    """A `Progress` that shows nothing, on a machine where nobody watches."""

    def row(self, row: Row) -> None: ...

    def note(self, text: str) -> None: ...

    def part(self, done: int, of: int, what: str) -> None: ...


class Actor:
    """A worker with the interface that Ray calls: a batch of jobs in, a batch of rows out."""

    def __init__(self, spec: RunSpec, pinned: PinnedModel):
        self.worker = Worker(spec, pinned, Silent())
        self.store = spec.settings.destination.store

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        asked: list[tuple[Job, list[Row]]] = [pickle.loads(data) for data in batch["job"]]
        answers = []
        for nth, (job, rows) in enumerate(asked):
            following = asked[nth + 1][0] if nth + 1 < len(asked) else None
            noted = self.store.noted(job.key)  # by an actor that died
            try:
                answers.append(self.worker(job, [*rows, *noted], following, self.store.note))
            except RestoreError as error:  # it ends the run: Ray must not try again
                answers.append(error)
        return {"nth": list(batch["nth"]), "answer": [pickle.dumps(one) for one in answers]}


@dataclass(frozen=True)
class RayExecutor:
    """Does jobs with Ray Data. Ray handles retries, dead workers and stragglers."""

    spec: RunSpec
    pinned: PinnedModel
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
            fn_constructor_args=(self.spec, self.pinned),
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
    """Connect to the cluster at its address, or start Ray here on the loopback interface.

    Raises:
        ModelError: There is no such cluster, or Ray does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send nobody usage data
    import ray
    from ray.data import DataContext

    if ray.is_initialized():  # by our caller, who ends it too
        yield
        return
    settings: dict[str, Any] = (
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
        ray.init(**settings, log_to_driver=False, logging_level="error")
    except Exception as error:  # it has no common class for its errors
        why = f"no cluster there: {error}" if cluster.address else str(error)
        raise ModelError(f"--runner ray {cluster.address}: {why}") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # Ray logs warnings to its own file
    context = DataContext.get_current()
    context.enable_progress_bars = False  # the run shows its own
    context.max_consecutive_actor_init_deaths = DEATHS
    try:
        yield
    finally:
        ray.shutdown()
