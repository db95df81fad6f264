"""Figures on the server as text that Prometheus reads."""

import time
from collections import Counter

import psutil

from restore.web.store import ENDED, Store
from restore.web.worker import Worker

TYPE = "text/plain; version=0.0.4"
BEGAN = time.time()


def text(store: Store, worker: Worker) -> str:
    """Gauges over the jobs that are kept."""
    jobs = list(store.all())
    counts = Counter((job.asked.kind, job.status) for job in jobs if job.status in ENDED)
    lines = [
        *head("restore_jobs", "Jobs that have ended and are kept."),
        *(
            f'restore_jobs{{kind="{kind}",status="{status}"}} {count}'
            for (kind, status), count in sorted(counts.items())
        ),
        *gauge("restore_queue_waiting", "Jobs that wait.", worker.waiting),
        *gauge("restore_queue_bound", "Jobs that may wait.", worker.bound),
        *gauge("restore_worker_busy", "1 while a job is in hand.", int(worker.is_busy)),
        *gauge("restore_worker_alive", "1 while jobs are worked off.", int(worker.is_alive)),
        *gauge("restore_job_seconds_sum", "Seconds of the jobs that are kept.", spent(store)),
        *gauge("process_resident_memory_bytes", "Memory.", psutil.Process().memory_info().rss),
        *gauge("process_start_time_seconds", "When it began.", round(BEGAN, 3)),
    ]
    return "\n".join(lines) + "\n"


def spent(store: Store) -> float:
    times = ((job.started, job.ended) for job in store.all())
    return round(sum(ended - started for started, ended in times if started and ended), 3)


def gauge(name: str, help: str, value: float) -> list[str]:
    return [*head(name, help), f"{name} {value}"]


def head(name: str, help: str) -> list[str]:
    return [f"# HELP {name} {help}", f"# TYPE {name} gauge"]
