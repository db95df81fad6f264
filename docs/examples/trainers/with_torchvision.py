"""The degradation as one of torchvision's transforms: python with_torchvision.py FOLDER_OF_CLASSES.

The dataset is torchvision's own and knows nothing of us; `Keyed` tells the transform which picture
it is given, in which epoch.
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from degradations.torch import Degrade, Epochs, Keyed


def main(photos: str, epochs: int = 2) -> None:
    torch.manual_seed(0)
    cut = [v2.ToImage(), v2.RandomCrop(64), v2.RandomHorizontalFlip()]
    degrade = [Degrade("realesrgan", scale=4, seed=0), v2.ToDtype(torch.float32, scale=True)]
    pairs = Keyed(ImageFolder(photos, transform=v2.Compose(cut + degrade)), seed=0)
    loader = DataLoader(pairs, batch_size=4, sampler=Epochs(pairs), num_workers=2)
    network = nn.Sequential(nn.Upsample(scale_factor=4, mode="bicubic"), nn.Conv2d(3, 3, 3, 1, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for epoch in range(epochs):
        losses = []
        for batch, _ in loader:  # beside it the classes
            loss = nn.functional.l1_loss(network(batch["lr"]), batch["hr"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
