"""From a condition to a clean latent: networks, tiles, noise and the sampling loop."""

from restore.diffusion import torchvision

torchvision.tried()  # before diffusers and transformers ask whether it is there
