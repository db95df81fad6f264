"""Refuse sampling options that cannot work, before any weights are read."""

from pathlib import Path

from restore.checkpoints import components, configs
from restore.diffusion.stack import scheduler_of
from restore.options import WalkOptions

SURE = 50  # steps that the default sampler can take with any schedule


def refuse(folder: Path, options: WalkOptions) -> None:
    """Raise ConfigError or ModelError if a model's schedule does not allow the sampling options."""
    usual = options.sampler == "ddim" and not options.sampler_options
    if not (folder / "scheduler").is_dir() or (usual and (options.steps or 0) <= SURE):
        return
    steps = configs.about(folder).steps if options.steps is None else options.steps
    if steps:
        schedule = components.build_scheduler(folder)
        scheduler_of(schedule, options.sampler, steps, options.sampler_options)
