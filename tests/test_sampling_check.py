"""What no sampler and no model folder can do is told before any weight is read, once."""

import json
import math
import re
import shutil
from pathlib import Path

import diffusers
import pytest
from diffusers import DDIMScheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restore import cli
from restore.checkpoints import (
    components,
    configs,
    families,
    manifest,
    model_paths,
    sampling_check,
)
from restore.diffusion import rehearsal
from restore.diffusion.stack import SCHEDULERS, scheduler_of
from restore.errors import ConfigError, ModelError, RestoreError
from restore.options import InpaintOptions, UpscaleOptions

SD = DDIMScheduler(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
)


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_steps_that_are_allowed_can_be_walked_and_others_are_refused(sampler):
    for steps in (1, 2, 51, 1000):
        try:
            scheduler = scheduler_of(SD, sampler, steps)
        except ConfigError as error:
            most = int(str(error).split(" takes ")[1].split()[0])
            assert most < steps and "take fewer" in str(error)
            assert not rehearsal.find_failure(scheduler_of(SD, sampler, most))
        else:  # 1000 were walked a moment ago, for up to three seconds
            assert steps == 1000 or not rehearsal.find_failure(scheduler)


def test_the_bounds_that_were_reported():
    for sampler, steps in (("ddim", 1000), ("dpm++_2m", 1000), ("lcm", 51)):
        with pytest.raises(ConfigError, match=f"sampler {re.escape(sampler)} takes"):
            scheduler_of(SD, sampler, steps)


def model(tmp_path: Path, **about) -> Path:
    folder = shutil.copytree(model_paths.find_path("nano"), tmp_path / "nano")
    for name, change in about.items():
        path = folder / name.replace("__", "/")
        told = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps({**told, **change}))
    manifest.write(folder)
    return folder


def test_a_walk_is_refused_without_reading_weights(tmp_path, monkeypatch):
    folder = model(tmp_path)
    monkeypatch.setattr(components, "read_weights", None)
    with pytest.raises(ConfigError, match="lcm takes 50 steps"):
        sampling_check.refuse(folder, UpscaleOptions(steps=200, sampler="lcm"))
    with pytest.raises(ConfigError, match="sampler_options"):
        sampling_check.refuse(
            folder, InpaintOptions(sampler_options={"timestep_spacing": "sideways"})
        )
    sampling_check.refuse(folder, UpscaleOptions(steps=200))


def test_the_command_says_so_once_and_ends_with_2(tmp_path, photo, capsys):
    photo("a.png")
    photo("b.png")
    words = ["upscale", tmp_path / "in", "-o", tmp_path / "out", "--steps", 200]
    assert cli.main([*map(str, words), "--set", "upscale.sampler=lcm"]) == 2
    assert "lcm takes 50 steps at the most" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


BAD = {
    "windows": {"stack": {"windows": {"size": 64, "stride": 0}}},
    "narrow": {"stack": {"windows": {"size": 64, "stride": 8}}},
    "words": {"stack": {"steps": "four"}},
    "nan": {"stack": {"residual_scale": math.nan}},
    "hears": {"stack": {"hears": "nothing"}},
    "huge": {"stack": {"steps": 10**9}},
    "context": {"stack": {"context": "spells"}},
    "no timesteps": {"scheduler__scheduler_config": {"num_train_timesteps": 0}},
    "one timestep": {"scheduler__scheduler_config": {"num_train_timesteps": -5}},
    "betas": {"scheduler__scheduler_config": {"beta_schedule": "sideways"}},
    "spacing": {"scheduler__scheduler_config": {"timestep_spacing": "sideways"}},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_model_that_makes_no_sense_ends_the_run_once_with_3(tmp_path, photo, capsys, change):
    for name in ("a.png", "b.png"):
        photo(name)
    folder = model(tmp_path, **change)
    words = ["upscale", tmp_path / "in", "-o", tmp_path / "out", "--model", folder, "--steps", 2]
    assert cli.main([str(word) for word in words]) == 3
    said = capsys.readouterr().err
    assert "Traceback" not in said and "INTERNAL" not in said
    report = tmp_path / "out" / "report.jsonl"
    rows = report.read_text().splitlines() if report.exists() else []
    assert not any(json.loads(row)["status"] == "failed" for row in rows)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
NAMES = [*configs.About.model_fields, "other"]
TREES = st.dictionaries(
    st.sampled_from(NAMES),
    VALUES | st.fixed_dictionaries({"size": VALUES, "stride": VALUES}) | st.lists(VALUES),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES | VALUES | st.lists(VALUES))
def test_any_stack_json_is_read_or_refused(tmp_path, tree):
    (tmp_path / "stack.json").write_text(json.dumps(tree))
    try:
        told = configs.about(tmp_path)
    except ModelError as error:
        assert "stack.json" in str(error)
    else:
        assert 1 <= told.steps <= 1000


CONFIG = json.loads(
    (model_paths.find_path("nano") / "scheduler" / "scheduler_config.json").read_text()
)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(st.sampled_from(sorted(CONFIG)), VALUES | st.lists(st.floats()), max_size=3),
    st.sampled_from(sorted(SCHEDULERS)),
    st.sampled_from([1, 4, 20]),
)
def test_any_schedule_is_walked_or_refused(tmp_path, change, sampler, steps):
    (tmp_path / "scheduler").mkdir(exist_ok=True)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**CONFIG, **change}))
    try:
        scheduler = scheduler_of(components.build_scheduler(tmp_path), sampler, steps)
    except RestoreError as error:
        assert str(error)
    else:
        assert not rehearsal.find_failure(scheduler)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SciPy's, in two of them
@pytest.mark.parametrize("saved", sorted(families.SCHEDULERS))
def test_a_scheduler_saved_by_diffusers_is_read_and_clips_no_latents(tmp_path, saved):
    getattr(diffusers, saved)().save_pretrained(tmp_path / "scheduler")
    schedule = components.build_scheduler(tmp_path)
    assert not scheduler_of(schedule, "ddim", 4).config.clip_sample
    assert not scheduler_of(schedule, "ddpm", 4).config.clip_sample
    assert scheduler_of(schedule, "ddim", 4, {"clip_sample": True}).config.clip_sample
