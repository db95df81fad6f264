"""A discriminator of patches, and its losses."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from restore.config import Options

MOST = 1e4  # of the adaptive weight


class AdversaryOptions(Options):
    """A PatchGAN discriminator (Isola et al. 2017). Latent diffusion starts its own after 50,000
    steps.
    """

    start: int = Field(ge=0)
    """Step from which the discriminator is trained and used; before it, it costs nothing."""
    weight: float = Field(0.5, gt=0)
    """Weight of the adversarial loss."""
    adaptive: bool = True
    """Scale the adversarial gradient to the size of the reconstruction's first."""
    channels: int = Field(64, ge=16, multiple_of=16)
    """Channels of the first layer."""
    layers: int = Field(3, ge=1)
    """Layers that halve the picture; with 3 the discriminator sees patches of 70 px."""
    learning_rate: float | None = Field(None, gt=0)
    """Learning rate of the discriminator; None: that of the run."""
    spectral: bool = False
    """Use spectral instead of group normalisation (Miyato et al. 2018), which keeps the
    discriminator smooth.
    """

    def build(self, inputs: int = 3) -> "Patches":
        """A new discriminator; `inputs` as in `Patches`."""
        return Patches(self.channels, self.layers, inputs, self.spectral)


class Patches(nn.Sequential):
    """A discriminator of patches (Isola et al. 2017): (B, inputs, H, W) in [-1, 1] -> logits, above
    0 where a patch looks real.

    It uses group instead of batch normalisation, so the logits of a picture do not depend on the
    other pictures of the batch or on other ranks.

    Args:
        channels: Channels of the first layer.
        layers: Layers that halve the picture.
        inputs: 3, or 6 if it sees the input beside each picture.
        spectral: Use spectral normalisation of the weights instead.
    """

    def __init__(self, channels: int, layers: int, inputs: int = 3, spectral: bool = False):
        widths = [channels * min(2**n, 8) for n in range(layers + 1)]
        modules: list[nn.Module] = [nn.Conv2d(inputs, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        for n in range(1, layers + 1):
            stride = 2 if n < layers else 1
            modules.append(nn.Conv2d(widths[n - 1], widths[n], 4, stride, 1, bias=spectral))
            if not spectral:
                modules.append(nn.GroupNorm(widths[n] // 16, widths[n]))
            modules.append(nn.LeakyReLU(0.2))
        super().__init__(*modules, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        for module in self:
            if isinstance(module, nn.Conv2d):
                if spectral:
                    parametrizations.spectral_norm(module)
                else:
                    nn.init.normal_(module.weight, 0, 0.02)


def adversarial_losses(
    discriminator: nn.Module,
    result: Tensor,
    truth: Tensor,
    fidelity: Tensor,
    last_layer: Tensor,
    options: AdversaryOptions,
    given: Tensor | None = None,
) -> dict[str, Tensor]:
    """The hinge losses of both sides (Lim and Ye 2017); the gradient of their sum trains each side
    by its own loss only.

    The generated pictures are scored with fixed weights of the discriminator, and the discriminator
    sees pictures that are detached from the generator. So one backward pass and one optimiser serve
    both.

    Args:
        discriminator: The network.
        result: Generated rgb (B, 3, H, W).
        truth: Real rgb of the same shape.
        fidelity: Scalar loss against which the adversarial one is balanced.
        last_layer: The weight that `result` came out of.
        options: Weights of the losses.
        given: rgb of the same size that both were made from, for a discriminator that sees it too.

    Returns:
        "adversarial", for the generator, and "discriminator".
    """

    def inputs_of(rgb: Tensor) -> Tensor:
        return (rgb if given is None else torch.cat([rgb, given], 1)) * 2 - 1

    still = {name: weight.detach() for name, weight in discriminator.named_parameters()}
    fooled = -functional_call(discriminator, still, (inputs_of(result),)).mean()
    weight = options.weight
    if options.adaptive:
        weight = weight * adaptive_weight(fidelity, fooled, last_layer)
    real, fake = (discriminator(inputs_of(rgb)) for rgb in (truth, result.detach()))
    verdict = (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    return {"adversarial": weight * fooled, "discriminator": verdict}


def adaptive_weight(fidelity: Tensor, fooled: Tensor, last_layer: Tensor) -> Tensor:
    """The ratio of the gradients of both losses at the last layer (Esser et al. 2021, equation 7).

    Args:
        fidelity: Scalar.
        fooled: Scalar, the generator's adversarial loss.
        last_layer: A weight that both depend on.
    """
    kept, adverse = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm()
        for loss in (fidelity, fooled)
    )
    return (kept / (adverse + 1e-4)).clamp(0, MOST).detach()
