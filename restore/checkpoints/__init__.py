"""Models: found, read, and put on a device."""

from restore.diffusion import torchvision

torchvision.try_before()  # the parts' classes are diffusers' and transformers'
