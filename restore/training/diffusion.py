"""Stage two: the denoiser, over pairs whose known and trust are drawn over all tasks."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from pydantic import Field
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from restore import vae
from restore.config import Options
from restore.contexts import Context
from restore.contexts.text import TextContext
from restore.layouts import REPAINT, TRUST
from restore.loading import load, save
from restore.noise import generator
from restore.stack import Stack
from restore.training.chance import WHOLE, Part
from restore.training.data import to_rgb
from restore.training.encoded import LivePairs, StoredPairs, pairs, ready
from restore.training.losses import gradient
from restore.training.pairs import PairOptions
from restore.windows import Windows


class StepOptions(Options):
    """The shapes of UNet and context, and how a walk is learnt, whatever the data."""

    autoencoder: Path  # the export of stage one
    channels: tuple[int, ...] = (32, 64, 96, 128)  # of the UNet, from full latent resolution down
    reading: int = Field(0, ge=0)  # so many of its levels, from the coarsest, read the context
    layers: int = Field(2, ge=1)  # ResNet blocks a level
    groups: int = Field(8, ge=1)
    text_width: int = Field(64, ge=8)
    text_layers: int = Field(2, ge=1)
    residual_scale: float = Field(0.7, gt=0)
    prediction: Literal["v_prediction", "sample"] = "v_prediction"  # what the UNet answers with
    last_share: float = Field(0.5, ge=0, le=1)  # of a batch that sits at the last timestep
    lean: float = Field(1.0, ge=1)  # of the other timesteps towards noise; 1 is uniform
    walk_weight: float = Field(1.0, ge=0)  # of the loss at all other timesteps
    repaint_weight: float = Field(1.0, ge=0)  # of the loss where the trust map says repaint
    pixel_start: int = Field(0, ge=0)  # step from which decoded pictures are compared as well
    pixel_weight: float = Field(0.0, ge=0)
    pixel_samples: int = Field(8, ge=1)  # so many of a batch are decoded


class DenoiserOptions(StepOptions):
    """What the denoiser of every task is trained on."""

    kind: Literal["denoiser"] = "denoiser"
    start: Path | None = None  # a trained model folder of these shapes to go on from
    data: PairOptions
    cache: Path = Path("runs/pairs")  # where encoded pairs are kept


def build(
    options: StepOptions, context: Context | None = None, windows: Windows | None = None
) -> Stack:
    """A stack with a trained autoencoder and the rest fresh.

    context  None: text, spelled letter by letter.
    """
    context, windows = context or text(options, letters()), windows or Windows()
    autoencoder = AutoencoderTiny.from_pretrained(
        options.autoencoder / "vae", local_files_only=True, torch_dtype=torch.float32
    )
    latent_channels = vae.channels(autoencoder)
    levels = len(options.channels)
    blocks = ["CrossAttn" if levels - n <= options.reading else "" for n in range(levels)]
    unet = UNet2DConditionModel(
        in_channels=2 * latent_channels + 1,
        out_channels=latent_channels,
        sample_size=windows.size,
        block_out_channels=options.channels,
        layers_per_block=options.layers,
        norm_num_groups=options.groups,
        down_block_types=tuple(f"{block}DownBlock2D" for block in blocks),
        up_block_types=tuple(f"{block}UpBlock2D" for block in reversed(blocks)),
        cross_attention_dim=options.text_width,
        attention_head_dim=4,
    )
    nn.init.zeros_(unet.conv_out.weight)  # the first answer is the known picture itself
    nn.init.zeros_(unet.conv_out.bias)
    return Stack(
        vae=autoencoder,
        unet=unet,
        context=context,
        schedule=schedule(options.prediction),
        layout=TRUST,
        windows=windows,
        residual_scale=options.residual_scale,
    )


def schedule(prediction: str = "v_prediction") -> DDIMScheduler:
    """A noise schedule that ends in pure noise."""
    return DDIMScheduler(
        prediction_type=prediction,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def text(options: StepOptions, tokenizer: CLIPTokenizer) -> TextContext:
    """A fresh text encoder."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.text_width,
        intermediate_size=4 * options.text_width,
        num_hidden_layers=options.text_layers,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return TextContext(CLIPTextModel(config), tokenizer)


def letters(words: Iterable[str] = (), length: int = 77) -> CLIPTokenizer:
    """CLIP's tokenizer where every letter is a token, so no word is unknown.

    words   these become one token each.
    length  of a chunk, its first and last token among it.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    spelled = [chr(code) for code in printable]
    spelled += [chr(256 + i) for i in range(256 - len(spelled))]  # GPT-2's names for other bytes
    pairs = merges(words)
    tokens = [*spelled, *(letter + "</w>" for letter in spelled), *(a + b for a, b in pairs)]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=length)


def merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """The merges of byte pair encoding (Sennrich et al. 2016) that make each word one token."""
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    pairs: list[tuple[str, str]] = []
    while counts := Counter(pair for word in spelled for pair in pairwise(word)):
        best = max(sorted(counts), key=counts.__getitem__)
        pairs.append(best)
        spelled = [_merged(word, best) for word in spelled]
    return pairs


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    made: list[str] = []
    for symbol in word:
        if made and (made[-1], symbol) == pair:
            made[-1] += symbol
        else:
            made.append(symbol)
    return made


def timesteps(count: int, share: float, last: int, rng: torch.Generator, lean: float = 1) -> Tensor:
    """(count,) timesteps: the first `share` of them the last one, the rest over all of them.

    lean  1 is uniform; above, the density grows as t ** (lean - 1).
    """
    t = torch.randint(0, last + 1, (count,), generator=rng, device=rng.device)
    if lean != 1:
        t = (last * ((t + 0.5) / (last + 1)) ** (1 / lean)).round().long()
    t[: round(count * share)] = last
    return t


def as_weights(x: Tensor, weight: Tensor) -> Tensor:
    """The input in the order in memory that the weights of its first layer have."""
    is_last = weight.is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format)


def train_step(
    stack: Stack,
    batch: dict[str, Tensor],
    options: StepOptions,
    step: int,
    rng: torch.Generator,
    part: Part = WHOLE,
) -> dict[str, Tensor]:
    """The losses of one batch.

    v prediction (Salimans and Ho 2022), or that of r itself, over the residual
    r = (target - known) / residual_scale at zero terminal SNR (Lin et al. 2024). At the last
    timestep nothing of r is left in x_t, so that part of the batch is a plain regression: one step
    of sampling is the faithful average.

    batch  target and known (B, C, h, w), trust (B, 1, h, w), tokens as the context's `inputs`
           gives them, and truth, uint8 (B, H, W, 3), where pixels count: as `ready` gives it.
    """
    known, trust = batch["known"], batch["trust"]
    residual = (batch["target"] - known) / stack.residual_scale
    last = stack.schedule.config.num_train_timesteps - 1
    count = part.of * len(known)
    t = part.cut(timesteps(count, options.last_share, last, rng, options.lean))
    noise = part.normal(known, rng)
    x = stack.schedule.add_noise(residual, noise, t)
    is_v = options.prediction == "v_prediction"
    wanted = stack.schedule.get_velocity(residual, noise, t) if is_v else residual
    said, which = batch["tokens"].unique(dim=0, return_inverse=True)  # most often nothing is
    tokens = stack.context.tokens(said)[which]
    shown = as_weights(stack.layout.unet_input(x, known, trust), stack.unet.conv_in.weight)
    made = stack.unet(shown, t, tokens).sample.float()
    # Fresh noise and what a hole hid are large and mostly unknowable: at full weight they drown the
    # small errors that restoring is about.
    weight = torch.where(t == last, 1.0, options.walk_weight).view(-1, 1, 1, 1)
    weight = weight * torch.where(trust == REPAINT, options.repaint_weight, 1.0)
    losses = {"latent": (weight * (made - wanted).square()).mean()}
    if options.pixel_weight and step >= options.pixel_start:
        some = slice(0, options.pixel_samples)
        # At the last timestep v is -r.
        end = -made[some] if is_v else made[some]
        latent = stack.from_walk(end, known[some])
        decoded = stack.vae.decoder(latent / stack.vae.config.scaling_factor)
        rgb, truth = (decoded.float() + 1) / 2, to_rgb(batch["truth"][some])
        losses["pixel"] = options.pixel_weight * (F.l1_loss(rgb, truth) + gradient(rgb, truth))
    return losses


class DenoiserStage:
    """What the loop needs to know of stage two."""

    def __init__(self, options: DenoiserOptions, seed: int, device: torch.device):
        self.options, self.seed, self.device = options, seed, device
        self.stack = build(options)
        if options.start:
            trained = load(options.start)
            self.stack.unet.load_state_dict(trained.unet.state_dict())
            self.stack.context.module.load_state_dict(trained.context.module.state_dict())
        self.stack.vae.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)
        self.stack.unet.to(device, memory_format=torch.channels_last)
        self.stack.context.module.to(device)
        self.model = nn.ModuleDict({"unet": self.stack.unet, "text": self.stack.context.module})
        digest = (options.autoencoder / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
        self.samples = self.pairs(options.data, digest, seed)
        shown = options.data.model_copy(update={"count": 64, "window": options.data.crop // 4})
        held_out = self.pairs(shown, digest, seed + 1, held_out=True)
        self.shown = torch.utils.data.default_collate([held_out[i] for i in range(32)])

    def pairs(
        self, options: PairOptions, digest: bytes, seed: int, held_out: bool = False
    ) -> StoredPairs | LivePairs:
        return pairs(options, self.stack, self.options.cache, digest.hex(), seed, held_out)

    def loss(self, batch: dict[str, Tensor], step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        rng = generator(self.device, self.seed, step)
        batch = ready(batch, self.stack, self.device)
        return train_step(self.stack, batch, self.options, step, rng, part)

    @torch.inference_mode()
    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """What is known, one step's answer and the truth, with both scores."""
        batch = ready(dict(self.shown), self.stack, self.device)
        known, trust = batch["known"], batch["trust"]
        noise = torch.randn(known.shape, generator=generator(self.device, self.seed))
        last = torch.tensor(self.stack.schedule.config.num_train_timesteps - 1)
        tokens = self.stack.context.tokens(batch["tokens"])
        v = self.stack.unet(self.stack.layout.unet_input(noise, known, trust), last, tokens).sample
        truth = to_rgb(batch["truth"])
        latents = known, self.stack.from_walk(-v, known)  # at the last timestep v is -x
        given, made = (vae.decode(self.stack.vae, latent) for latent in latents)
        scores = {}
        for name, rgb in (("known_psnr", given), ("psnr", made)):
            error = (rgb - truth).square().mean((1, 2, 3))
            scores[name] = (-10 * error.log10()).mean().item()
        return [rgb[:8] for rgb in (given, made, truth)], scores

    def export(self, folder: Path) -> None:
        """Save the whole stack as `restore.loading.load` reads it."""
        save(self.stack, folder, card=f"# {folder}\nTrained with:\n\n```\n{self.options}\n```\n")
