"""The processes and the device that training runs on, and errors of theirs in plain words."""

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import (
    DistributedType,
    ProjectConfiguration,
    broadcast_object_list,
    parse_flag_from_env,
)

from degradations.errors import RecipeError
from restore.checkpoints import accelerators
from restore.errors import ConfigError, DiskFullError, RestoreError
from restore.training import trackers
from restore.training.options import TrainOptions

# accelerate's own ways of cutting weights, and how its launcher asks for them
OWN_WAYS = {
    DistributedType.FSDP: "ACCELERATE_USE_FSDP",
    DistributedType.DEEPSPEED: "ACCELERATE_USE_DEEPSPEED",
    DistributedType.MEGATRON_LM: "ACCELERATE_USE_MEGATRON_LM",
}
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # EFBIG: `ulimit -f`
log = logging.getLogger(__name__)
GAIN = 1.2  # how much faster bf16 must be to be taken for fp32
PATIENCE = timedelta(hours=12)  # other processes wait while the first encodes pairs


@contextmanager
def user_errors(output: Path) -> Iterator[None]:
    """Turn errors that a user can mend into ours, which commands show in one line.

    Args:
        output: The run's folder.

    Raises:
        ConfigError: Instead of RecipeError.
        DiskFullError: If there is no room for a file of the run.
        RestoreError: If a worker process was killed.
    """
    try:
        yield
    except RecipeError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFullError(
            f"{error.filename or output}: cannot be written: {error.strerror}; make room, then run "
            "again to go on from the last checkpoint"
        ) from error
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


def settle_precision(options: TrainOptions, accelerator: Accelerator) -> TrainOptions:
    """Return the options with the precision that `auto` means here, the same in all processes."""
    if options.precision != "auto":
        is_slow = accelerator.device.type == "cpu" and options.precision == "fp32"
        if accelerator.is_main_process and is_slow and accelerators.cpu_computes_bf16():
            log.info("this CPU computes bf16: precision=auto tries whether it trains faster")
        return options
    faster = "bf16" if bf16_gain(accelerator.device) > GAIN else "fp32"
    chosen = broadcast_object_list([faster])[0]
    if accelerator.is_main_process:
        log.info("precision auto: %s", chosen)
    return options.model_copy(update={"precision": chosen})


def bf16_gain(device: torch.device) -> float:
    """How many times as fast as fp32 bf16 is: a layer of 64 channels, forward and backward."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return 0.0
    layer = torch.nn.Conv2d(64, 64, 3, padding=1, device=device)
    batch = torch.rand(8, 64, 64, 64, device=device)
    layer, batch = (x.to(memory_format=torch.channels_last) for x in (layer, batch))

    def seconds(enabled: bool) -> float:
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled):
            total = layer(layer(batch)).sum()
        total.backward()
        layer.weight.grad.sum().item()  # waits for the device
        return time.perf_counter() - began

    exact, half = (min(seconds(enabled) for _ in range(4)) for enabled in (False, True))
    return exact / half
