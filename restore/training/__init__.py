"""Train a model: data, stages, losses and the loop that owns their order."""

from restore.diffusion import torchvision

torchvision.tried()  # before diffusers and transformers ask whether it is there
