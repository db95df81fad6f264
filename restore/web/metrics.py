"""Metrics of the server in Prometheus' text format."""

import time
from collections import Counter

import psutil

from restore.web.store import ENDED, Store
from restore.web.worker import Worker

TYPE = "text/plain; version=0.0.4"
BEGAN = time.time()


def render(store: Store, worker: Worker) -> str:
    """Render all metrics."""
    jobs = list(store.all())
    memory = psutil.Process().memory_info().rss
    counts = Counter((job.request.kind, job.status) for job in jobs if job.status in ENDED)
    is_busy, is_alive, seconds = int(worker.is_busy), int(worker.is_alive), total_seconds(store)
    lines = [
        *format_head("restore_jobs", "Jobs that have ended and are kept."),
        *(
            f'restore_jobs{{kind="{kind}",status="{status}"}} {count}'
            for (kind, status), count in sorted(counts.items())
        ),
        *format_gauge("restore_queue_waiting", "Jobs that wait.", worker.waiting),
        *format_gauge("restore_queue_bound", "Jobs that may wait.", worker.bound),
        *format_gauge("restore_worker_busy", "1 while a job is in hand.", is_busy),
        *format_gauge("restore_worker_alive", "1 while jobs are worked off.", is_alive),
        *format_gauge("restore_job_seconds_sum", "Seconds of the jobs that are kept.", seconds),
        *format_gauge("process_resident_memory_bytes", "Memory.", memory),
        *format_gauge("process_start_time_seconds", "When it began.", round(BEGAN, 3)),
    ]
    return "\n".join(lines) + "\n"


def total_seconds(store: Store) -> float:
    """Sum the run times of the jobs that are kept."""
    times = ((job.started, job.ended) for job in store.all())
    return round(sum(ended - started for started, ended in times if started and ended), 3)


def format_gauge(name: str, help: str, value: float) -> list[str]:
    """Format a gauge with one value."""
    return [*format_head(name, help), f"{name} {value}"]


def format_head(name: str, help: str) -> list[str]:
    """Format the help and type lines of a gauge."""
    return [f"# HELP {name} {help}", f"# TYPE {name} gauge"]
