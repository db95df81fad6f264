"""The processes and the device that training runs on, and errors of theirs in plain words."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import DistributedType, ProjectConfiguration, parse_flag_from_env

from degradations.errors import RecipeError
from restore.errors import ConfigError, RestoreError
from restore.training import trackers
from restore.training.options import TrainOptions

# accelerate's own ways of cutting weights, and how its launcher asks for them
OWN_WAYS = {
    DistributedType.FSDP: "ACCELERATE_USE_FSDP",
    DistributedType.DEEPSPEED: "ACCELERATE_USE_DEEPSPEED",
    DistributedType.MEGATRON_LM: "ACCELERATE_USE_MEGATRON_LM",
}
PATIENCE = timedelta(hours=12)  # other processes wait while the first encodes pairs


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn errors that a user can mend into ours, which commands show in one line.

    Raises:
        ConfigError: Instead of RecipeError.
        RestoreError: If a worker process was killed.
    """
    try:
        yield
    except RecipeError as error:
        raise ConfigError(str(error)) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise RestoreError(
            "a process that makes samples was ended from outside, perhaps for want of memory; set "
            "workers lower, or 0, and run again to go on from the last checkpoint"
        ) from error


def setup_accelerator(options: TrainOptions) -> Accelerator:
    """The device, and the processes that `accelerate launch` started.

    Raises:
        ConfigError: If there is no such device, or the options do not fit the processes.
    """
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {options.device}: torch finds no CUDA device; try device=cpu")
    if ":" in options.device:
        torch.cuda.set_device(options.device)
    is_cpu = options.device == "auto" and not torch.accelerator.is_available()
    accelerator = Accelerator(
        cpu=is_cpu or options.device == "cpu",
        mixed_precision="no",  # autocast and the scaler of fp16 are the loop's
        log_with=trackers.choose(options.log_with) or None,
        project_config=ProjectConfiguration(logging_dir=str(options.output / "tensorboard")),
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    for way, variable in OWN_WAYS.items():  # the loop prepares no optimiser for them
        if accelerator.distributed_type == way or parse_flag_from_env(variable):
            raise ConfigError(
                f"accelerate was told to use {way.value}; launch without it, and set shard=true "
                "to cut weights and moments over the processes"
            )
    if options.precision == "fp16" and accelerator.device.type != "cuda":
        raise ConfigError("precision fp16 needs a CUDA device; bf16 serves a CPU")
    if accelerator.device.type == "cuda":  # a step's shapes are those of the step before
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    parts = accelerator.num_processes * options.accumulate
    if options.batch % parts:
        raise ConfigError(
            f"batch {options.batch} cannot be shared by {accelerator.num_processes} processes in "
            f"{options.accumulate} parts each; make it a multiple of {parts}"
        )
    return accelerator
