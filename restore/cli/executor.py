"""The options for what does a run's work: this process, one process on each device, or Ray."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from restore.errors import UsageError

if TYPE_CHECKING:
    from restore.batch.ray_executor import Cluster


@dataclass(frozen=True)
class ExecutorOptions:
    """The options of commands over files for what does the work; each field is an option."""

    devices: Annotated[
        str | None,
        typer.Option(help="A process on each does the work: 0,1 for two GPUs, or cpu,cpu."),
    ] = None
    runner: Annotated[
        Literal["local", "ray"],
        typer.Option(help="ray: workers of Ray do the work, here or in a cluster."),
    ] = "local"
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster; none: one of this machine, for this run.")
    ] = None
    workers: Annotated[int, typer.Option(min=1, help="Of Ray, each with a model.")] = 1
    worker_cpus: Annotated[
        float, typer.Option(min=0, help="Cores that Ray counts for each worker.")
    ] = 1
    worker_gpus: Annotated[
        float, typer.Option(min=0, help="GPUs that Ray gives each worker; 0.5: two share one.")
    ] = 0

    @property
    def named(self) -> list[str]:
        """The devices that --devices names."""
        return self.devices.split(",") if self.devices is not None else []

    @property
    def cluster(self) -> "Cluster | None":
        """Where Ray does the work; None: Ray is not used.

        Raises:
            UsageError: Options of Ray are given without --runner ray.
        """
        if self.runner == "ray":
            from restore.batch.ray_executor import Cluster

            return Cluster(self.workers, self.address or "", self.worker_cpus, self.worker_gpus)
        if (self.address, self.workers, self.worker_cpus, self.worker_gpus) != (None, 1, 1, 0):
            raise UsageError("--address, --workers, --worker-cpus, --worker-gpus: add --runner ray")
        return None
