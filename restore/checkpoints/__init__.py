"""Find and load models, and put them on a device."""

from restore.diffusion import torchvision

torchvision.install_check()  # before diffusers and transformers are imported
