"""From a condition to a clean latent: networks, tiling, noise and the sampling loop."""

from restore.diffusion import torchvision

torchvision.install_check()  # before diffusers and transformers are imported
