"""The first stage: a compact convolutional restorer whose answer the walk starts from.

Its answer is a function of the picture alone, so it is sharp where a walk of one step averages;
what follows only mends it (Lin et al. 2023, DiffBIR, does the same with a larger network).
"""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from restore.diffusion import compact


class Restorer(ModelMixin, compact.Enlarging, ConfigMixin):
    """Real-ESRGAN's SRVGGNetCompact of x4 (Wang et al. 2021), its weights by basicsr's names.

    channels  of every layer but the last.
    layers    convolutions between the first and the last.
    """

    @register_to_config
    def __init__(self, channels: int = 64, layers: int = 32) -> None:
        super().__init__()
        self.fill(channels, layers)


class Fusion(ModelMixin, compact.Fusing, ConfigMixin):
    """Gives a restored picture back what halving the input lost, where the input can be trusted.

    At its own size a picture is halved, restored by x4 and halved again: noise goes at a sixteenth
    of the price of x4 at full size, and with it detail that was clean. This sees both.

    channels  of its layers, which compute at half the size.
    layers    convolutions between the first and the last.
    """

    @register_to_config
    def __init__(self, channels: int = 48, layers: int = 4) -> None:
        super().__init__()
        self.fill(channels, layers)
        nn.init.zeros_(self.body[-1].weight)  # it begins as the restored picture
        nn.init.zeros_(self.body[-1].bias)
