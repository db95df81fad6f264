"""The options of a training run."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from degradations import recipes
from restore.config import Options
from restore.training.optim import Schedule
from restore.training.registry import StageOptions
from restore.training.trackers import Tracker

Trackers = tuple[Tracker, ...] | Tracker | Literal["auto"]
RECIPES = ("recipe", "recipes")  # options that name recipes


class TrainOptions(Options):
    """One training run: a stage and the loop's own settings."""

    output: Path
    """Folder of the run: log, previews, checkpoints, export."""
    stage: StageOptions
    """What is trained, and on what."""
    seed: int = Field(0, ge=0, lt=2**64)
    """Seed of all that is random."""
    steps: int = Field(10_000, ge=1)
    """Number of updates."""
    seconds: float | None = Field(None, gt=0)
    """Seconds of training after which the run ends before `steps`. The schedule then follows the
    clock, so no two such runs are equal.
    """
    batch: int = Field(16, ge=1)
    """Samples of a step, over all processes."""
    accumulate: int = Field(1, ge=1)
    """Parts of a step's samples that a process takes one after another."""
    learning_rate: float = Field(5e-4, gt=0)
    """Peak learning rate of AdamW."""
    warmup: int = Field(200, ge=0)
    """Steps of linear warm-up."""
    schedule: Schedule = "cosine"
    """Learning rate after the warm-up: a cosine down to zero at the last step, or constant."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    clip: float = Field(1.0, gt=0)
    """Norm at which gradients are clipped."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights, which are what is exported."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Precision of the arithmetic; fp16 needs a CUDA device; auto: bf16 where it is measured to be
    faster than fp32."""
    checkpointing: bool = False
    """Compute activations twice to keep fewer of them in memory."""
    compile: bool = False
    """Compile the networks with torch.compile."""
    channels_last: bool | Literal["auto"] = "auto"
    """Memory format of the weights; auto: channels last where that is faster."""
    shard: bool = False
    """Cut weights, moments and average over the training processes (FSDP), to save memory."""
    workers: int = Field(0, ge=0)
    """Processes, for each training process, that make samples ahead of time."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """auto, cpu, mps, cuda or cuda:N."""
    log_every: int = Field(50, ge=1)
    """Steps between two entries of the log."""
    log_with: tuple[Tracker, ...] | Literal["auto"] = "auto"
    """Where the run can be followed, beside log.csv: one name or a list; auto: TensorBoard, where
    it is installed; none or []: nowhere else.
    """
    project: str = Field("restore", pattern=r"^\w[\w .-]*$")
    """Project of Weights & Biases, experiment of MLflow, folder of TensorBoard."""
    show_every: int = Field(1000, ge=1)
    """Steps between two previews."""
    save_every: int = Field(1000, ge=1)
    """Steps between two checkpoints."""
    keep: int = Field(2, ge=1)
    """Number of checkpoints kept."""
    export_every_s: float | None = Field(None, gt=0)
    """Seconds between exports while training goes on; None: one export at the end."""
    resume: bool | Literal["latest"] | Path = "latest"
    """latest: go on from the newest valid checkpoint of `output`, if there is one; or the folder of
    a checkpoint; false: refuse a folder that holds checkpoints.
    """

    @classmethod
    def found_beside(cls, values: dict[str, Any], folder: Path) -> dict[str, Any]:
        """A recipe's file lies beside the YAML file that names it, or else in the working folder,
        from which all other paths go out.
        """

        def place(name: Any) -> Any:
            is_file = isinstance(name, str) and name not in recipes.NAMED
            return str(folder / name) if is_file and (folder / name).is_file() else name

        stage = values.get("stage")
        if not isinstance(stage, dict) or not isinstance(data := stage.get("data"), dict):
            return values
        data = {key: place(value) if key in RECIPES else value for key, value in data.items()}
        if isinstance(weights := data.get("recipes"), dict):
            data["recipes"] = {place(name): weight for name, weight in weights.items()}
        return {**values, "stage": {**stage, "data": data}}

    @model_validator(mode="before")
    @classmethod
    def _translate(cls, values: Any) -> Any:
        """Read `tensorboard: true` or false, the name of `log_with` before it had others.

        An option file of BasicSR has but strange keys, of which none says what to do.
        """
        if isinstance(values, dict) and "network_g" in values:
            problem = "is an option file of BasicSR; `restore degrade import` makes a recipe of it"
            raise ValueError(f"{problem}, which `restore train custom_degradation` trains on")
        if isinstance(values, dict) and isinstance(values.get("tensorboard"), bool):
            values = dict(values)
            wanted = "auto" if values.pop("tensorboard") else ()
            values.setdefault("log_with", wanted)
        return values

    @field_validator("log_with", mode="before", json_schema_input_type=Trackers | Literal["none"])
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if not isinstance(value, str) or value == "auto":
            return value
        return () if value == "none" else (value,)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} cannot be cut into {self.accumulate} equal parts")
        if self.precision == "fp16" and self.device in ("cpu", "mps"):
            raise ValueError("precision fp16 needs a CUDA device; bf16 serves a CPU")
        if self.shard and self.precision == "fp16":
            raise ValueError("shard goes with precision bf16 or fp32, not with fp16")
        if self.shard and (self.channels_last is True or self.compile):
            raise ValueError("shard goes with channels_last auto or false, and without compile")
        return self
