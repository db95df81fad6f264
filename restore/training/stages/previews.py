"""Samples for batches of pairs, and their scores."""

import torch
from torch import Tensor

from restore.diffusion.conditioning import as_velocity, guided
from restore.diffusion.noise import generator
from restore.diffusion.sampling import sample, start
from restore.diffusion.stack import Stack
from restore.diffusion.tiling import Corner, Predict, WindowPredict
from restore.training.data.loading import to_rgb
from restore.training.rng import WHOLE, Part
from restore.training.stages.decoding import decode_result


def predictor(stack: Stack, batch: dict[str, Tensor], guidance: float = 1) -> Predict:
    """predict(x, t) for a batch of pairs, without windows.

    Args:
        stack: The networks.
        batch: conditioning, trust and tokens, as `prepare_batch` returns them.
        guidance: Scale of classifier-free guidance; 1 is off.
    """
    conditioning, trust = batch["conditioning"], batch["trust"]
    silence = stack.reader.inputs("")[None].to(conditioning.device)

    def predict_with(inputs: Tensor) -> WindowPredict:
        words = stack.reader.tokens(inputs).expand(len(conditioning), -1, -1)

        def predict(x: Tensor, t: Tensor, _: list[Corner]) -> Tensor:
            shown = stack.layout.unet_input(x, conditioning, trust)
            return stack.unet(shown.to(memory_format=torch.channels_last), t, words).sample

        return predict

    predict = guided(predict_with(batch["tokens"]), predict_with(silence), guidance)
    return lambda x, t: predict(x, t, []).float()


def sample_latents(
    stack: Stack, batch: dict[str, Tensor], steps: int, seed: int, guidance: float = 1
) -> Tensor:
    """Sample a batch with DDIM.

    Args:
        stack: The networks.
        batch: conditioning, trust and tokens.
        steps: Steps of sampling.
        seed: Seed of the noise.
        guidance: Scale of classifier-free guidance; 1 is off.

    Returns:
        Scaled latents (B, C, h, w).
    """
    conditioning, scheduler = batch["conditioning"], stack.scheduler("ddim", steps)
    rng = generator(conditioning.device, seed)
    noise = torch.randn(conditioning.shape, generator=rng, device=conditioning.device)
    asked = predictor(stack, batch, guidance)
    predict = as_velocity(lambda x, t, _: asked(x, t), stack.schedule)
    x = sample(lambda x, t: predict(x, t, []), start(scheduler, noise), scheduler)
    return stack.from_residual(x, conditioning)


def compare(
    stack: Stack, batch: dict[str, Tensor], latents: dict[str, Tensor]
) -> tuple[list[Tensor], dict[str, float]]:
    """Rows of pictures and PSNRs for a preview.

    Args:
        stack: Decodes the latents.
        batch: conditioning, truth and, where the stack has a first stage, shown.
        latents: Latents by the name of their score.

    Returns:
        Rows of the conditioning, each of the latents, and the truth; the mean PSNR of each but the
        last.
    """
    truth, rows, scores = to_rgb(batch["truth"]), [], {}
    for name, latent in {"known_psnr": batch["conditioning"], **latents}.items():
        rgb = decode_result(stack, latent, batch).clamp(0, 1)
        error = (rgb - truth).square().mean((1, 2, 3))
        scores[name] = (-10 * error.log10()).mean().item()
        rows.append(rgb[:8])
    return [*rows, truth[:8]], scores


def drop_captions(
    stack: Stack,
    batch: dict[str, Tensor],
    share: float,
    rng: torch.Generator,
    part: Part = WHOLE,
) -> dict[str, Tensor]:
    """The batch without the captions of a random share of its samples.

    Args:
        stack: Its context gives the tokens of no caption.
        batch: tokens (B, length).
        share: Share of the samples.
        rng: Draws them.
        part: Which part of the step's samples the batch is.
    """
    tokens = batch["tokens"]
    drawn = torch.rand(part.of * len(tokens), 1, generator=rng, device=tokens.device)
    silence = stack.reader.inputs("").to(tokens.device)
    return {**batch, "tokens": torch.where(part.cut(drawn) < share, silence, tokens)}
