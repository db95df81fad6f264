"""Find and load models, and put them on a device."""

from restore.diffusion import torchvision

torchvision.try_before()  # before diffusers and transformers are imported
