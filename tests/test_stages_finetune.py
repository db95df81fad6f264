"""Models that exist, tuned: SD's UNets widened to the trust layout, whole or by LoRA."""

from copy import deepcopy

import pytest
import tiny
import torch
import yaml
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from folders import closed
from PIL import Image
from safetensors.torch import load_file

from restore.checkpoints import lora
from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.diffusion.layouts import BASE, INPAINTING, KEEP, REPAINT, RESTORE, TRUST
from restore.errors import ConfigError, ModelError
from restore.options import UpscaleOptions
from restore.tasks.run import restore
from restore.training import loop
from restore.training.stages import lora as adapters
from restore.training.stages.finetune import FinetuneOptions, FinetuneStage, adapt_schedule
from restore.training.stages.lora import LoraOptions, attach, fuse
from restore.training.stages.widening import widen_stack

peft = pytest.importorskip("peft")
CPU = torch.device("cpu")
QUICK = {"batch": 2, "steps": 2, "log_every": 1, "show_every": 2, "save_every": 2}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(2):
        Image.fromarray(pixels(72, 80, seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny SD checkpoints: a base of 4 channels and an inpainter of 9."""
    return {
        kind: tiny.checkpoint(tmp_path_factory.mktemp(kind), kind)
        for kind in ("base", "inpainting")
    }


def stage_of(photos, model, **more):
    data = {"photos": str(photos), "crop": 32, "count": 4, "window": 8, "workers": 0}
    data["recipe"] = "clean_bicubic"
    return {
        **{"kind": "finetune", "model": str(model), "data": data, "shown_steps": 1},
        # encoded once for all tests
        **{
            "cache": str(photos.with_name("pairs")),
            "pixel_weight": 1.0,
            "pixel_samples": 1,
            **more,
        },
    }


def train(folder, stage, **more):
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**QUICK, "stage": stage, "output": str(folder), **more}))
    return loop.run(path, [])


def inputs(values, channels=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x, known = torch.randn(2, 2, channels, 16, 16, generator=rng).unbind()
    choice = torch.randint(len(values), (2, 1, 16, 16), generator=rng)
    return x, known, torch.tensor(values)[choice]


@pytest.mark.parametrize(("kind", "layout"), [("base", BASE), ("inpainting", INPAINTING)])
@torch.no_grad()
def test_a_widened_unet_answers_as_before(folders, kind, layout):
    stack = load(str(folders[kind]), "cpu", "fp32")
    assert stack.layout == layout
    # an inpainter's mask knew two values; a base knew of nothing, so anything may be told
    x, known, trust = inputs([KEEP, REPAINT] if kind == "inpainting" else [KEEP, RESTORE, REPAINT])
    t, tokens = torch.tensor([7, 700]), stack.context.embed("a").expand(2, -1, -1)
    before = stack.unet(stack.layout.unet_input(x, known, trust), t, tokens).sample
    wide = widen_stack(stack)
    after = wide.unet(wide.layout.unet_input(x, known, trust), t, tokens).sample
    assert (wide.layout, wide.unet.config.in_channels) == (TRUST, 9)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    assert before.std() > 0.01


@pytest.mark.parametrize("kind", ["base", "inpainting"])
def test_a_tuned_checkpoint_is_saved_in_the_trust_layout(folders, photos, tmp_path, kind, picture):
    stack = load(str(train(tmp_path / "run", stage_of(photos, folders[kind]))), "cpu")
    assert stack.layout == TRUST
    assert stack.residual_scale is None
    card = (tmp_path / "run/export/README.md").read_text()
    assert "restore upscale" in card
    assert str(folders[kind]) not in card  # where it lay is nobody's business
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "run/export/unet", local_files_only=True)
    first = unet.conv_in.weight
    assert first.shape[1] == 9
    assert first[:, 4:].abs().sum() > 0  # what is told of the picture has begun to count
    plan = DDIMScheduler.from_pretrained(tmp_path / "run/export/scheduler", local_files_only=True)
    assert (plan.config.prediction_type, plan.config.rescale_betas_zero_snr) == ("epsilon", False)
    made = restore(picture(20, 24), UpscaleOptions(scale=2, steps=2), stack, seed=0)
    assert made.size == (40, 48)


def test_our_own_model_is_tuned_from_where_it_stands(stack, photos, tmp_path):
    save(stack, tmp_path / "ours", "# test\n", torch.float32)
    made = FinetuneStage(
        FinetuneOptions.model_validate(stage_of(photos, tmp_path / "ours")), 0, CPU
    )
    assert made.options.last_share == 0.5  # its walk begins at pure noise
    assert made.stack.residual_scale == stack.residual_scale
    before, after = stack.unet.state_dict(), made.stack.unet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {name.split(".")[0] for name, _ in made.model.named_parameters()} == {"unet"}
    assert all(p.requires_grad for p in made.model.parameters())


def test_the_text_encoder_is_tuned_if_asked(folders, photos, tmp_path):
    given = stage_of(photos, folders["base"], text=True)
    made = FinetuneStage(FinetuneOptions.model_validate(given), 0, CPU)
    batch = torch.utils.data.default_collate([made.samples[i] for i in range(2)])
    sum(made.loss(batch, 0).values()).backward()
    assert any(p.grad is not None for p in made.stack.context.module.parameters())


def test_an_adversary_of_the_walk_judges_a_tuned_model_too(folders, photos):
    judge = {"adversary": {"start": 0, "channels": 16, "layers": 1}}
    given = stage_of(photos, folders["base"], last_share=0, texture=judge)
    made = FinetuneStage(FinetuneOptions.model_validate(given), 0, CPU)
    batch = torch.utils.data.default_collate([made.samples[i] for i in range(2)])
    assert "discriminator" in made.loss(batch, 0)
    assert "judge" in made.model
    with pytest.raises(ValueError, match="a LoRA holds still; set texture"):
        FinetuneOptions.model_validate({**given, "lora": {"rank": 2}})


@pytest.mark.parametrize("layers", ["attention", "all"])
def test_a_lora_begins_as_nothing_and_ends_in_the_weights(folders, layers):
    stack, plain = (load(str(folders["base"]), "cpu", "fp32") for _ in range(2))
    attach(stack, LoraOptions(rank=2, alpha=4, layers=layers), ("unet", "text_encoder"))
    x, _, _ = inputs([KEEP])

    def answers(s):
        return s.unet(x, 500, s.context.embed("a").expand(2, -1, -1)).sample

    with torch.no_grad():
        assert torch.equal(answers(stack), answers(plain))
        for part in (stack.unet, stack.context.module):
            for name, p in part.named_parameters():
                assert p.requires_grad == ("lora_" in name)
                if "lora_B" in name:
                    torch.nn.init.normal_(p, std=0.1)
        moved = answers(stack)
        assert (moved - answers(plain)).abs().max() > 1e-3
        torch.testing.assert_close(answers(fuse(stack)), moved, rtol=1e-4, atol=1e-4)
        assert torch.equal(answers(stack), moved)  # the original goes on


def test_a_lora_of_our_own_model_is_exported_fused_and_alone(stack, photos, tmp_path):
    save(stack, tmp_path / "ours", "# test\n", torch.float32)
    given = {"lora": {"rank": 2, "alpha": 2, "layers": "all"}, "text": True}
    stage = stage_of(photos, tmp_path / "ours", **given)
    folder = train(tmp_path / "run", stage, learning_rate=0.05, ema=0.0, warmup=0)
    one = load(str(folder), "cpu", "fp32")
    two = load(str(tmp_path / "ours"), "cpu", "fp32", loras=[(str(folder / "lora"), 1.0)])
    base = dict(stack.unet.named_parameters())
    for name, tensor in load_file(folder / "unet/diffusion_pytorch_model.safetensors").items():
        assert tensor.shape == base[name].shape
    x, known, trust = inputs([RESTORE], channels=8)
    with torch.no_grad():
        made = [
            s.unet(
                s.layout.unet_input(x, known, trust), 500, s.context.embed("a").expand(2, -1, -1)
            )
            for s in (one, two, stack)
        ]
    fused_in, beside, untuned = (m.sample for m in made)
    torch.testing.assert_close(fused_in, beside, rtol=0, atol=0.02)  # stored in fp16
    assert (fused_in - untuned).abs().max() > 0.05
    assert not closed(tmp_path)


MANY = UNet2DConditionModel(  # random; every kind of block that reads text, and a class beside it
    in_channels=4,
    sample_size=16,
    block_out_channels=(8, 8, 8, 8),
    layers_per_block=1,
    norm_num_groups=4,
    cross_attention_dim=16,
    attention_head_dim=4,
    down_block_types=(
        *("CrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"),
        *("AttnDownBlock2D", "ResnetDownsampleBlock2D"),
    ),
    mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    up_block_types=(
        *("ResnetUpsampleBlock2D", "AttnUpBlock2D"),
        *("SimpleCrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    ),
    addition_embed_type="text",
    addition_embed_type_num_heads=4,
    class_embed_type="timestep",
    use_linear_projection=True,
)


def by_diffusers_scripts(made, folder):
    """As its training scripts write it, with names of the time before peft."""
    layers, about = {}, {}
    for prefix, module in lora.targets(made).items():
        layers[f"{prefix}_lora_layers"] = convert_state_dict_to_diffusers(
            peft.get_peft_model_state_dict(module)
        )
        about[f"{prefix}_lora_adapter_metadata"] = module.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(folder, **layers, **about)


@pytest.mark.parametrize("saved", [adapters.save, by_diffusers_scripts])
@pytest.mark.parametrize("layers", ["attention", "all"])
@pytest.mark.parametrize("kind", ["nano", "base", "many"])
def test_every_layer_of_a_lora_comes_back_from_its_file(kind, layers, saved, folders, tmp_path):
    made, other = (
        load("nano" if kind == "nano" else str(folders["base"]), "cpu", "fp32") for _ in range(2)
    )
    if kind == "many":
        made.unet, other.unet = deepcopy(MANY), deepcopy(MANY)
    attach(made, LoraOptions(rank=2, alpha=6, layers=layers), ("unet", "text_encoder"))
    for module in lora.targets(made).values():
        for name, p in module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p)
    saved(made, tmp_path)
    lora.add(other, tmp_path)
    for one, two in zip(lora.targets(made).values(), lora.targets(other).values(), strict=True):
        wanted, got = map(peft.get_peft_model_state_dict, (one, two))
        assert wanted.keys() == got.keys()
        assert all(torch.equal(wanted[key], got[key]) for key in wanted)
    assert {layer.scaling["default"] for layer in lora.layers(other)} == {3}


def test_a_lora_on_a_widened_unet_trains_what_reads_the_new_channels(folders, photos, tmp_path):
    given = stage_of(photos, folders["base"], lora={"rank": 2})
    made = FinetuneStage(FinetuneOptions.model_validate(given), 0, CPU)
    free = {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert {name for name in free if "lora_" not in name} == {
        "unet.conv_in.weight",
        "unet.conv_in.bias",
    }
    assert any("lora_A" in name for name in free)
    made.export(tmp_path / "export")
    assert load(str(tmp_path / "export"), "cpu").layout == TRUST
    assert not (tmp_path / "export" / "lora").exists()


def test_a_lora_without_a_layer_says_what_to_take(stack, photos, tmp_path):
    save(stack, tmp_path / "ours", "# test\n", torch.float32)
    made = load(str(tmp_path / "ours"), "cpu", "fp32")
    for name in [n for n, _ in made.unet.named_modules() if n.endswith("attentions")]:
        made.unet.get_submodule(name.rpartition(".")[0]).attentions = torch.nn.ModuleList()
    with pytest.raises(ConfigError, match="take all"):
        attach(made, LoraOptions(), ("unet",))


def test_what_cannot_be_widened_is_refused(tmp_path):
    for kind in ("x4", "ldm"):
        stack = load(str(tiny.checkpoint(tmp_path / kind, kind)), "cpu", "fp32")
        with pytest.raises(ModelError, match="base or inpainting"):
            widen_stack(stack)


def test_a_schedule_is_the_checkpoints_own_unless_told():
    options = FinetuneOptions.model_validate({"model": "m", "data": {"photos": "p"}})
    old = tiny.schedule("epsilon")
    kept = adapt_schedule(old, options)
    assert torch.equal(kept.alphas_cumprod, old.alphas_cumprod)
    assert kept.config.prediction_type == "epsilon"
    zero = options.model_copy(update={"zero_terminal_snr": True})
    with pytest.raises(ConfigError, match="v_prediction"):
        adapt_schedule(old, zero)
    made = adapt_schedule(old, zero.model_copy(update={"prediction": "v_prediction"}))
    assert (made.alphas_cumprod[-1], made.config.timestep_spacing) == (0, "trailing")
