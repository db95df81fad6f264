"""A discriminator of patches, and how hard an autoencoder leans on it."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from restore.config import Options

MOST = 1e4  # of the adaptive weight


class AdversaryOptions(Options):
    """A PatchGAN beside the autoencoder. Latent diffusion's own begin after 50,000 steps."""

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


class Patches(nn.Sequential):
    """(B, inputs, H, W) in [-1, 1] -> logits, above 0 where a patch looks real (Isola et al. 2017).

    Group instead of batch normalisation: a verdict depends on its own picture alone, whatever
    shares the batch or the other ranks hold.

    Args:
        inputs: 3, or 6 where it sees beside a picture what that was made from.
        spectral: Normalise the weights instead.
    """

    def __init__(self, channels: int, layers: int, inputs: int = 3, spectral: bool = False):
        widths = [channels * min(2**n, 8) for n in range(layers + 1)]
        made: list[nn.Module] = [nn.Conv2d(inputs, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        for n in range(1, layers + 1):
            stride = 2 if n < layers else 1
            made.append(nn.Conv2d(widths[n - 1], widths[n], 4, stride, 1, bias=spectral))
            if not spectral:
                made.append(nn.GroupNorm(widths[n] // 16, widths[n]))
            made.append(nn.LeakyReLU(0.2))
        super().__init__(*made, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        for module in self:
            if isinstance(module, nn.Conv2d):
                if spectral:
                    parametrizations.spectral_norm(module)
                else:
                    nn.init.normal_(module.weight, 0, 0.02)


def adversarial_losses(
    discriminator: nn.Module,
    made: Tensor,
    truth: Tensor,
    fidelity: Tensor,
    last_layer: Tensor,
    options: AdversaryOptions,
    given: Tensor | None = None,
) -> dict[str, Tensor]:
    """Both sides' hinge losses (Lim and Ye 2017); their sum descends each by its own weights only.

    What made the pictures meets a judge that holds still, and the judge meets pictures cut off from
    what made them, so that one backward pass and one optimiser serve both.

    Args:
        fidelity: The scalar that the adversary is weighed against.
        last_layer: The weight that `made` came out of.
        given: rgb of the same size that both were made from, for a judge that sees it too.
    """

    def shown(rgb: Tensor) -> Tensor:
        return (rgb if given is None else torch.cat([rgb, given], 1)) * 2 - 1

    still = {name: weight.detach() for name, weight in discriminator.named_parameters()}
    fooled = -functional_call(discriminator, still, (shown(made),)).mean()
    weight = options.weight
    if options.adaptive:
        weight = weight * adaptive_weight(fidelity, fooled, last_layer)
    real, fake = (discriminator(shown(rgb)) for rgb in (truth, made.detach()))
    told = (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    return {"adversarial": weight * fooled, "discriminator": told}


def adaptive_weight(fidelity: Tensor, fooled: Tensor, last_layer: Tensor) -> Tensor:
    """The ratio of both gradients at the last layer (Esser et al. 2021, equation 7), a scalar."""
    kept, adverse = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm()
        for loss in (fidelity, fooled)
    )
    return (kept / (adverse + 1e-4)).clamp(0, MOST).detach()
