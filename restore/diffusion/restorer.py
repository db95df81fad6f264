"""The first stage: a compact convolutional restorer, whose result sampling starts from.

It is a function of the picture alone, so it is sharp where one sampling step would average.
Sampling then only corrects it (as Lin et al. 2023, DiffBIR, with a larger network).
"""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from restore.diffusion import compact


class Restorer(ModelMixin, compact.Enlarging, ConfigMixin):
    """Real-ESRGAN's SRVGGNetCompact for x4 (Wang et al. 2021), with basicsr's tensor names.

    Args:
        channels: Channels of every layer but the last.
        layers: Convolutions between the first and the last.
    """

    @register_to_config
    def __init__(self, channels: int = 64, layers: int = 32) -> None:
        super().__init__()
        self.fill(channels, layers)


class Fusion(ModelMixin, compact.Fusing, ConfigMixin):
    """Adds detail back that halving the input lost, where the input is clean.

    To restore a picture at its own size, it is halved, enlarged by x4 and halved again. This
    removes noise at a sixteenth of the cost of x4 at full size, but also detail. The fusion reads
    the input and the restored picture.

    Args:
        channels: Channels of its layers, which compute at half the size.
        layers: Convolutions between the first and the last.
    """

    @register_to_config
    def __init__(self, channels: int = 48, layers: int = 4) -> None:
        super().__init__()
        self.fill(channels, layers)
        nn.init.zeros_(self.body[-1].weight)  # before training the result is the restored picture
        nn.init.zeros_(self.body[-1].bias)
