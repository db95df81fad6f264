"""A student's few steps end where its teacher's many do. For Gaussian data both are known."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
import yaml
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import nn

from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.errors import ConfigError
from restore.options import UpscaleOptions
from restore.tasks.run import restore
from restore.training import loop
from restore.training.stages.distil import (
    DistilOptions,
    DistilStage,
    distil_step,
    leap,
    timestep_grid,
)
from restore.training.stages.networks import schedule
from restore.training.stages.prediction import alpha_sigma, from_clean, to_clean
from restore.training.stages.previews import sample_latents

MEAN, SPREAD = 0.3, 0.5  # of the Gaussian that is walked to
KINDS = ["v_prediction", "sample"]


def exact(plan):
    """predict(x, t) of a perfect teacher: the mean of the clean latent, given x."""

    def predict(x, t):
        alpha, sigma = alpha_sigma(plan, t.expand(len(x)))
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        return from_clean(plan, MEAN + gain * (x - alpha * MEAN), x, t.expand(len(x)))

    return predict


class Teacher(nn.Module):
    """A UNet that knows the Gaussian."""

    def __init__(self, plan, channels):
        super().__init__()
        self.predict, self.channels = exact(plan), channels

    def forward(self, shown, t, tokens):
        return SimpleNamespace(sample=self.predict(shown[:, : self.channels], t))


class Student(nn.Module):
    """A UNet that answers with a line a timestep."""

    def __init__(self, channels, last=1000):
        super().__init__()
        self.lines, self.channels = nn.Parameter(torch.zeros(last, 2)), channels

    def forward(self, shown, t, tokens):
        slope, offset = self.lines[t.expand(len(shown))].view(-1, 2, 1, 1, 1).unbind(1)
        return SimpleNamespace(sample=slope * shown[:, : self.channels] + offset)


def pair(stack, kind):
    """A student that knows nothing, and the teacher that knows all."""
    plan = schedule(kind)
    common = {"schedule": plan, "offload_device": torch.device("cpu")}
    teacher = replace(stack, unet=Teacher(plan, stack.channels), **common)
    return replace(stack, unet=Student(stack.channels), **common), teacher


def batch(stack, size=8, seed=0):
    shape = (size, stack.channels, 4, 4)
    rng = torch.Generator().manual_seed(seed)
    tokens = stack.context.inputs("")[None].expand(size, -1)
    known, trust = torch.zeros(shape), torch.full((size, 1, 4, 4), 0.5)
    drawn = MEAN + SPREAD * torch.randn(shape, generator=rng)
    target = stack.from_residual(drawn, known)
    return {"conditioning": known, "target": target, "trust": trust, "tokens": tokens}


def options(**more):
    return DistilOptions.model_validate({"teacher": "t", "data": {"photos": "p"}, **more})


@pytest.mark.parametrize(("few", "each"), [(4, 8), (1, 30), (3, 7)])
def test_the_students_steps_are_every_nth_of_the_teachers(few, each):
    plan = schedule()
    rows = timestep_grid(plan, few, each)
    for steps, times in ((few, rows[:, 0]), (few * each, rows[:, :-1].flatten())):
        plan.set_timesteps(steps)
        assert torch.equal(times, plan.timesteps)
    assert torch.equal(rows[:-1, -1], rows[1:, 0])
    assert rows[-1, -1] == -1


@pytest.mark.parametrize("kind", KINDS)
def test_a_leap_ends_where_the_teachers_steps_do(kind):
    """One step of diffusers' DDIM to the clean latent of the leap, against five of its own."""
    plan = schedule(kind)
    x = torch.randn(3, 4, 8, 8)
    for row in timestep_grid(plan, 4, 5):
        times = row.expand(3, -1)
        end = leap(exact(plan), plan, x, times)
        plan.set_timesteps(20)
        walked = x
        for t in row[:-1]:
            walked = plan.step(exact(plan)(walked, t), t, walked).prev_sample
        plan.set_timesteps(4)
        leapt = plan.step(from_clean(plan, end, x, times[:, 0]), row[0], x).prev_sample
        torch.testing.assert_close(leapt, walked, rtol=1e-3, atol=1e-3)
        x = walked


def test_many_steps_carry_noise_to_the_gaussian():
    """The walk's ordinary differential equation maps noise n to MEAN + SPREAD * n."""
    plan, noise = schedule(), torch.randn(2, 4, 8, 8)
    end = leap(exact(plan), plan, noise, timestep_grid(plan, 1, 250).expand(2, -1))
    torch.testing.assert_close(end, MEAN + SPREAD * noise, rtol=0, atol=0.02)
    one = to_clean(plan, exact(plan)(noise, torch.tensor(999)), noise, torch.tensor([999, 999]))
    torch.testing.assert_close(one, torch.full_like(one, MEAN))  # one step is the average


@pytest.mark.parametrize(("kind", "few", "each"), [("v_prediction", 1, 20), ("sample", 2, 10)])
def test_a_distilled_walk_agrees_with_many_steps(stack, kind, few, each):
    student, teacher = pair(stack, kind)
    given = options(few=few, each=each)
    optimizer = torch.optim.Adam(student.unet.parameters(), 0.1)
    for step in range(80):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / 80)
        optimizer.zero_grad()
        rng = torch.Generator().manual_seed(step)
        distil_step(student, teacher, batch(stack, seed=step), given, rng)["leap"].backward()
        optimizer.step()
    with torch.no_grad():
        goal = sample_latents(teacher, batch(stack), few * each, seed=1)
        ours, hasty = (sample_latents(s, batch(stack), few, seed=1) for s in (student, teacher))
    off_ours, off_hasty = ((made - goal).square().mean().sqrt() for made in (ours, hasty))
    assert off_ours < 0.05 * SPREAD
    assert off_ours < 0.2 * off_hasty


def test_guidance_is_learnt_in(stack):
    """The teacher's words move its answer; what the student is to say moves further with them."""
    student, plain = pair(stack, "v_prediction")

    class Told(Teacher):
        def forward(self, shown, t, tokens):
            said = super().forward(shown, t, tokens).sample
            one = tokens[..., 0].mean(1)  # the mean of all is nothing, after a layer norm
            return SimpleNamespace(sample=said + one.view(-1, 1, 1, 1))

    teacher = replace(plain, unet=Told(plain.schedule, stack.channels))
    given = batch(stack)
    given["tokens"] = stack.context.inputs("strong noise")[None].expand(8, -1)
    losses = []
    for guidance in (1, 3):
        rng = torch.Generator().manual_seed(0)
        made = distil_step(student, teacher, given, options(guidance=guidance), rng)
        losses.append(made["leap"])
    assert losses[0] != losses[1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(2):
        Image.fromarray(pixels(72, 80, seed)).save(folder / f"{seed}.png")
    return folder


def stage_of(photos, teacher, **more):
    data = {"photos": str(photos), "crop": 32, "count": 4, "window": 8, "workers": 0}
    data["recipe"] = "clean_bicubic"
    cache = str(photos.with_name("pairs"))
    common = {"kind": "distil", "teacher": str(teacher), "data": data, "cache": cache}
    return {**common, "few": 2, "each": 3, **more}


def test_a_student_is_exported_as_any_model(stack, photos, tmp_path, picture):
    save(stack, tmp_path / "teacher", "# test\n", torch.float32)
    stage = stage_of(photos, tmp_path / "teacher", guidance=2.0)
    path = tmp_path / "c.yaml"
    common = {"steps": 2, "batch": 2, "log_every": 1, "save_every": 2, "show_every": 2}
    path.write_text(yaml.safe_dump({**common, "stage": stage, "output": str(tmp_path / "run")}))
    folder = loop.run(path, [])
    rows = [line.split(",") for line in (tmp_path / "run/log.csv").read_text().splitlines()]
    told = {name: float(value) for _, name, value in rows}
    assert told["off_teacher"] > 0
    assert {"psnr", "off_student"} <= told.keys()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True)
    assert not torch.equal(unet.conv_out.weight.float(), stack.unet.conv_out.weight)
    plan = DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    assert plan.config.timestep_spacing == "trailing"
    made = restore(picture(20, 24), UpscaleOptions(scale=2, steps=2), load(str(folder), "cpu"), 0)
    assert made.size == (40, 48)


def test_a_student_begins_as_its_teacher_or_as_told(stack, photos, tmp_path):
    save(stack, tmp_path / "teacher", "# test\n", torch.float32)
    other = replace(stack, unet=UNet2DConditionModel.from_config(stack.unet.config))
    save(other, tmp_path / "other", "# test\n", torch.float32)
    teacher = tmp_path / "teacher"
    for begun, more in ((stack, {}), (other, {"student": str(tmp_path / "other")})):
        given = DistilOptions.model_validate(stage_of(photos, teacher, **more))
        made = DistilStage(given, 0, torch.device("cpu"))
        wanted = begun.unet.state_dict()
        assert all(torch.equal(wanted[k], v) for k, v in made.student.unet.state_dict().items())
        batch = torch.utils.data.default_collate([made.samples[i] for i in range(2)])
        made.loss(batch, 0)["leap"].backward()
        assert all(p.grad is None for p in made.teacher.unet.parameters())
        assert all(p.grad is not None for p in made.student.unet.conv_out.parameters())


def test_a_teacher_of_another_layout_is_refused(tmp_path, photos):
    teacher = tiny.checkpoint(tmp_path / "base", "base")
    with pytest.raises(ConfigError, match="kind: finetune"):
        DistilStage(DistilOptions.model_validate(stage_of(photos, teacher)), 0, torch.device("cpu"))
