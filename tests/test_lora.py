"""LoRA: the same answers as diffusers', fused or not; what does not fit is refused."""

import json

import diffusers
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from restore.checkpoints import lora
from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.diffusion.conditioning import Condition
from restore.errors import ModelError

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # theirs, of two
LINEARS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in"]  # proj_in is a convolution
CLIP = ["q_proj", "v_proj", "fc1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("model"), "base")


@pytest.fixture
def stack(folder):
    return load(str(folder), device="cpu")


def adapter(module: torch.nn.Module, names: list[str], rank: int, alpha: int, seed: int):
    """Random LoRA tensors for a module."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)
    peft.inject_adapter_in_model(config, module)
    for name, weight in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return config, peft.get_peft_model_state_dict(module)


@pytest.fixture(scope="module")
def loras(folder, tmp_path_factory):
    """Two LoRAs on UNet and text encoder, saved by diffusers."""
    made = []
    for seed, (rank, alpha) in enumerate([(2, 4), (3, 3)]):
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
        one, unet = adapter(pipe.unet, LINEARS, rank, alpha, seed)
        two, text = adapter(pipe.text_encoder, CLIP, rank, alpha, seed)
        made.append(tmp_path_factory.mktemp("lora"))
        pipe.save_lora_weights(
            made[-1],
            unet_lora_layers=unet,
            text_encoder_lora_layers=text,
            unet_lora_adapter_metadata=one.to_dict(),
            text_encoder_lora_adapter_metadata=two.to_dict(),
        )
    return made


@torch.no_grad()
def answer(unet, text_encoder, tokenizer) -> torch.Tensor:
    ids = tokenizer("a red bird", padding="max_length", return_tensors="pt").input_ids
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    return unet(x, torch.tensor(500), text_encoder(ids).last_hidden_state).sample


def ours(stack) -> torch.Tensor:
    return answer(stack.unet, stack.context.module, stack.context.tokenizer)


def theirs(folder, loras) -> torch.Tensor:
    """The UNet's by diffusers' own loader, the text encoder's by the formula.

    transformers' adapters ask for a newer peft with every other release, so diffusers' pipeline may
    refuse to load the text encoder's part.
    """
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    names = [f"lora{i}" for i in range(len(loras))]
    for name, (path, scale) in zip(names, loras, strict=True):
        state, alphas, about = pipe.lora_state_dict(
            path, weight_name="pytorch_lora_weights.safetensors", return_lora_metadata=True
        )
        pipe.load_lora_into_unet(state, alphas, pipe.unet, adapter_name=name, metadata=about)
        added = add_by_hand(pipe.text_encoder, state, about, scale)
        assert added == sum("text_encoder" in key and ".lora_A." in key for key in state)
    pipe.unet.set_adapters(names, [scale for _, scale in loras])
    return answer(pipe.unet, pipe.text_encoder, pipe.tokenizer)


@torch.no_grad()
def add_by_hand(module: torch.nn.Module, state: dict, about: dict, scale: float) -> int:
    """W + scale alpha / rank B A (Hu et al. 2021, equation 3); the number of layers that it met."""
    share = about["text_encoder.lora_alpha"] / about["text_encoder.r"] * scale
    added = 0
    for name, layer in module.named_modules():
        key = f"text_encoder.{name}"
        if f"{key}.lora_A.weight" in state:
            a, b = (state[f"{key}.lora_{side}.weight"] for side in "AB")
            layer.weight += share * b @ a
            added += 1
    return added


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (one - other).abs().max().item() < 1e-5


@pytest.mark.parametrize("scales", [[1], [0.4], [0.7, -1.5]])
def test_loras_answer_as_diffusers_and_the_formula_say(folder, loras, stack, scales):
    plain = ours(stack)
    chosen = list(zip(loras, scales, strict=False))
    for number, (path, scale) in enumerate(chosen):
        lora.add(stack, path, scale, f"lora{number}")
    assert near(ours(stack), theirs(folder, chosen))
    assert not near(ours(stack), plain)


def test_fusing_changes_no_answer_and_unfusing_gives_the_weights_back(stack, loras):
    before = [p.clone() for module in stack.parts for p in module.parameters()]
    lora.add(stack, loras[0], 0.8, "one")
    lora.add(stack, loras[1], 0.5, "two")
    attached = ours(stack)
    lora.fuse(stack)
    assert near(ours(stack), attached)
    lora.unfuse(stack)
    assert near(ours(stack), attached)
    lora.remove(stack)
    after = [p for module in stack.parts for p in module.parameters()]
    assert len(after) == len(before)
    assert all(map(near, before, after))


def test_what_was_taken_off_leaves_no_trace(stack, loras):
    names = [list(module.state_dict()) for module in stack.parts]
    plain = ours(stack)
    lora.add(stack, loras[0])
    lora.remove(stack)
    assert names == [list(module.state_dict()) for module in stack.parts]
    assert torch.equal(ours(stack), plain)
    lora.add(stack, loras[0])  # and it can be put on again


def test_another_scale_is_another_answer_and_zero_is_none(stack, loras):
    plain = ours(stack)
    lora.add(stack, loras[0], 1, "one")
    lora.rescale(stack, "one", 0)
    assert near(ours(stack), plain)
    lora.rescale(stack, "one", 2)
    twice = ours(stack)
    assert not near(twice, plain)
    lora.rescale(stack, "one", 1)
    lora.fuse(stack)
    lora.rescale(stack, "one", 2)
    assert near(ours(stack), twice)
    lora.unfuse(stack)
    lora.rescale(stack, "one", 0)
    assert near(ours(stack), plain)


def test_loading_with_loras_fuses_them_and_tells_in_the_digest(folder, loras, stack):
    chosen = [(str(loras[0]), 0.6), (str(loras[1]), 0.9)]
    made = load(str(folder), device="cpu", loras=chosen)
    assert near(ours(made), theirs(folder, chosen))
    other = load(str(folder), device="cpu", loras=[(str(loras[0]), 0.5)])
    assert len({made.digest, other.digest, stack.digest}) == 3
    assert not any(p.requires_grad for module in made.parts for p in module.parameters())


def test_a_fused_stack_saves_as_a_plain_one_and_an_unfused_one_is_refused(
    folder, loras, stack, tmp_path
):
    lora.add(stack, loras[0])
    (tmp_path / "saved").mkdir()
    with pytest.raises(ModelError, match="fuse or remove"):
        save(stack, tmp_path / "saved", "# tiny\n", torch.float32)
    assert (tmp_path / "saved").is_dir(), "what was there before is gone"
    lora.fuse(stack)
    save(stack, tmp_path / "saved", "# tiny\n", torch.float32)
    assert torch.equal(ours(load(str(tmp_path / "saved"), device="cpu")), ours(stack))


def test_the_format_of_peft_is_read_with_its_alpha(folder, stack, tmp_path):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=LINEARS, init_lora_weights=False)
    model = peft.get_peft_model(pipe.unet, config)
    model.save_pretrained(tmp_path)
    lora.add(stack, tmp_path)
    assert near(ours(stack), answer(model, pipe.text_encoder, pipe.tokenizer))


def test_layers_of_several_ranks_keep_their_own(folder, loras, stack, tmp_path):
    """Without a config alpha is each layer's rank: half as many columns twice are the same."""
    held = load_file(next(loras[1].glob("*.safetensors")))
    wide = {
        key: torch.cat([t, t], 0 if ".lora_A." in key else 1) / 2**0.5 if "to_k" in key else t
        for key, t in held.items()
    }
    for name, tensors in (("one", held), ("two", wide)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    lora.add(stack, tmp_path / "one.safetensors")
    one = ours(stack)
    lora.remove(stack)
    lora.add(stack, tmp_path / "two.safetensors")
    assert near(ours(stack), one)


def test_a_text_encoder_alone_can_have_one(loras, stack, tmp_path):
    held = load_file(next(loras[0].glob("*.safetensors")))
    save_file({k: t for k, t in held.items() if "fc1" in k}, tmp_path / "text.safetensors")
    plain = ours(stack)
    lora.add(stack, tmp_path / "text.safetensors")
    assert not near(ours(stack), plain)


def test_the_format_of_kohya_is_read_with_its_alpha(folder, loras, stack, tmp_path):
    tensors = {}
    for key, tensor in load_file(next(loras[0].glob("*.safetensors"))).items():
        part, _, name = key.partition(".")
        name, _, side = name.removesuffix(".weight").rpartition(".lora_")
        prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[part]
        flat = prefix + name.removeprefix("text_model.").replace(".", "_")
        tensors[f"{flat}.lora_{'down' if side == 'A' else 'up'}.weight"] = tensor
        tensors[f"{flat}.alpha"] = torch.tensor(4.0)
    save_file(tensors, tmp_path / "kohya.safetensors")
    lora.add(stack, tmp_path / "kohya.safetensors")
    assert near(ours(stack), theirs(folder, [(loras[0], 1)]))


# SDXL: a UNet and two text encoders


@pytest.fixture(scope="module")
def xl_folder(tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("model"), "xl")


@pytest.fixture
def xl(xl_folder):
    return load(str(xl_folder), device="cpu")


@torch.no_grad()
def heard(stack) -> torch.Tensor:
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    condition = Condition(torch.zeros(1, 0, 16, 16), torch.ones(1, 1, 16, 16))
    return stack.predict(condition, "a red bird")(x, torch.tensor(500), [(0, 0)])


def layers_of_xl(stack) -> dict[str, torch.nn.Module]:
    """Those that a trainer would take, by their names in files."""
    held = {"unet": stack.unet, **dict(stack.context.module.named_children())}
    return {
        f"{prefix}.{name if prefix == 'unet' else OLD + name.removeprefix(OLD)}": layer
        for prefix, module in held.items()
        for name, layer in module.named_modules()
        if name.endswith(("to_q", "to_out.0", "ff.net.2", "proj_in", "q_proj", "fc1"))
    }


OLD = "text_model."
RANK, ALPHA = 2, {"unet": 6.0, "text_encoder": 3.0, "text_encoder_2": 5.0}


def by_kohya(name: str) -> str:
    """A layer's name in kohya's files, whose blocks are called as SDXL's authors did."""
    prefix, _, rest = name.partition(".")
    rest = rest.replace("down_blocks.1.attentions.0", "input_blocks.3.1")
    rest = rest.replace("mid_block.attentions.0", "middle_block.1")
    for number in range(2):
        rest = rest.replace(f"up_blocks.0.attentions.{number}", f"output_blocks.{number}.1")
    short = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    return f"{short[prefix]}_{rest.replace('.', '_')}"


@torch.no_grad()
def xl_lora(path, stack, naming: str) -> None:
    """Save a random LoRA by a naming, and put it into the stack's weights by the formula."""
    rng, tensors, metadata = torch.Generator().manual_seed(3), {}, {}
    for name, layer in layers_of_xl(stack).items():
        a = torch.randn(RANK, layer.in_features, generator=rng)
        b = torch.randn(layer.out_features, RANK, generator=rng) * 0.1
        alpha = ALPHA[name.partition(".")[0]]
        layer.weight += alpha / RANK * b @ a
        if naming == "kohya":
            own = by_kohya(name)
            tensors |= {f"{own}.lora_down.weight": a, f"{own}.lora_up.weight": b}
            tensors[f"{own}.alpha"] = torch.tensor(alpha)
        else:
            tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
            tensors |= {f"{name}.alpha": torch.tensor(alpha)} if naming == "alphas" else {}
    for prefix, alpha in ALPHA.items():
        metadata |= {f"{prefix}.r": RANK, f"{prefix}.lora_alpha": alpha}
    about = {"format": "pt", "lora_adapter_metadata": json.dumps(metadata)}
    save_file(tensors, path, metadata=about if naming == "diffusers" else None)


@pytest.mark.parametrize("naming", ["kohya", "diffusers", "alphas"])
def test_a_lora_of_sdxl_reaches_the_unet_and_both_text_encoders(xl, xl_folder, tmp_path, naming):
    path, plain, wanted = tmp_path / "lora.safetensors", heard(xl), load(str(xl_folder), "cpu")
    xl_lora(path, wanted, naming)
    lora.add(xl, path)
    assert (heard(xl) - heard(wanted)).abs().max() < 1e-4
    for part in lora.targets(xl).values():
        assert any(True for _ in lora.layers_of(part))
    lora.fuse(xl)
    assert (heard(xl) - heard(wanted)).abs().max() < 1e-4
    save(xl, tmp_path / "saved", "# tiny\n", torch.float32)
    assert (heard(load(str(tmp_path / "saved"), "cpu")) - heard(wanted)).abs().max() < 1e-4
    lora.remove(xl)
    assert (heard(xl) - plain).abs().max() < 1e-4


def test_a_lora_of_sdxl_does_not_go_on_stable_diffusion_nor_the_other_way(
    xl, xl_folder, stack, loras, tmp_path
):
    xl_lora(tmp_path / "xl.safetensors", load(str(xl_folder), "cpu"), "diffusers")
    refused(stack, tmp_path / "xl.safetensors", "text_encoder_2", "same family")
    with pytest.raises(ModelError, match="another model"):
        lora.add(xl, loras[0])


def test_a_file_of_which_diffusers_would_drop_a_part_is_refused(xl, xl_folder, tmp_path):
    path = tmp_path / "lora.safetensors"
    xl_lora(path, load(str(xl_folder), "cpu"), "kohya")
    held = load_file(path)
    more = {
        name.replace("input_blocks_3_1", "down_blocks_1_attentions_0"): tensor.clone()
        for name, tensor in held.items()
        if "input_blocks_3_1" in name
    }
    save_file({**held, **more}, path)
    with pytest.raises(ModelError, match="in two ways"):
        lora.add(xl, path)


def test_embeddings_of_new_words_beside_layers_are_refused_by_name(stack, loras, tmp_path):
    held = load_file(next(loras[0].glob("*.safetensors")))
    words = {"bundle_emb.bird.string_to_param.*": torch.zeros(2, 16)}
    save_file(held | words, tmp_path / "lora.safetensors")
    refused(stack, tmp_path / "lora.safetensors", "embeddings of new words", "bird")


def refused(stack, path, *words: str) -> None:
    plain = ours(stack)
    with pytest.raises(ModelError) as caught:
        lora.add(stack, path)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert torch.equal(ours(stack), plain)


def test_wrong_shapes_and_foreign_keys_are_refused_and_change_nothing(stack, loras, tmp_path):
    held = load_file(next(loras[0].glob("*.safetensors")))
    key = next(name for name in held if "to_q.lora_A" in name)
    path = tmp_path / "lora.safetensors"
    save_file({**held, key: torch.zeros(2, 99)}, path)
    refused(stack, path, "do not fit the unet", "(2, 99)", "SD 2.x")
    save_file({**held, key: torch.zeros(5, 16)}, path)  # of another rank than its lora_B
    refused(stack, path, "do not fit the unet", "(5, 16)")
    save_file({k: t for k, t in held.items() if k != key}, path)
    refused(stack, path, "do not fit the unet", key.replace("lora_A", "lora_B"))
    save_file({**held, "unet.no_such.to_q.lora_A.weight": torch.zeros(2, 16)}, path)
    refused(stack, path, "no layer of the unet", "no_such")
    save_file({f"text_encoder_2.{key}": tensor for key, tensor in held.items()}, path)
    refused(stack, path, "text_encoder_2", "same family")
    save_file({"hello": torch.zeros(2)}, path)
    refused(stack, path, "hello")


def test_a_config_that_contradicts_its_tensors_is_refused_and_changes_nothing(
    stack, loras, tmp_path
):
    held = load_file(next(loras[0].glob("*.safetensors")))
    about = {"unet.r": 5, "unet.lora_alpha": 5, "unet.target_modules": LINEARS}
    path = tmp_path / "lora.safetensors"
    save_file(held, path, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(about)})
    names = list(stack.unet.state_dict())
    refused(stack, path, "peft refuses it")
    assert list(stack.unet.state_dict()) == names
    lora.add(stack, loras[0])


def test_what_is_no_lora_is_refused(stack, tmp_path):
    refused(stack, tmp_path, "pytorch_lora_weights.safetensors")
    refused(stack, tmp_path / "gone.safetensors", "no such")
    torch.save({}, tmp_path / "lora.bin")
    refused(stack, tmp_path / "lora.bin", "pickled")
    (tmp_path / "lora.safetensors").write_bytes(b"nothing")
    refused(stack, tmp_path / "lora.safetensors", "no LoRA")


def test_a_name_is_given_once_and_nothing_is_added_to_what_is_fused(stack, loras):
    lora.add(stack, loras[0], name="one")
    with pytest.raises(ModelError, match="another name"):
        lora.add(stack, loras[1], name="one")
    lora.fuse(stack)
    with pytest.raises(ModelError, match="unfuse"):
        lora.add(stack, loras[1], name="two")


def test_a_layout_without_text_takes_no_lora(loras, tmp_path):
    stack = load(str(tiny.checkpoint(tmp_path / "ldm", "ldm")), device="cpu")
    with pytest.raises(ModelError, match="nothing"):
        lora.add(stack, loras[0])


def test_without_peft_the_mend_is_named(stack, loras, monkeypatch):
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"restore-toolkit\[train\]"):
        lora.add(stack, loras[0])
