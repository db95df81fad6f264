"""The degradation as one of albumentations' transforms: python with_albumentations.py PHOTOS."""

import sys
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from degradations.albumentations import Degrade
from degradations.torch import Epochs, Keyed


class Photos(Dataset):
    def __init__(self, folder: str, transform: A.Compose):
        self.files, self.transform = sorted(Path(folder).iterdir()), transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict:
        rgb = cv2.imread(str(self.files[index]), cv2.IMREAD_COLOR_RGB)
        made = self.transform(image=rgb)
        return {"lr": planes(made["image"]), "hr": planes(made["hr"]), "trace": made["trace"]}


def planes(rgb: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rgb).permute(2, 0, 1) / 255


def main(photos: str, epochs: int = 2) -> None:
    torch.manual_seed(0)
    cut = [A.RandomCrop(64, 64), A.HorizontalFlip()]
    transform = A.Compose([*cut, Degrade("realesrgan", scale=4, seed=0)])
    pairs = Keyed(Photos(photos, transform), seed=0, seeded=[transform])
    loader = DataLoader(pairs, batch_size=4, sampler=Epochs(pairs), num_workers=2)
    network = nn.Sequential(nn.Upsample(scale_factor=4, mode="bicubic"), nn.Conv2d(3, 3, 3, 1, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for epoch in range(epochs):
        losses = []
        for batch in loader:
            loss = nn.functional.l1_loss(network(batch["lr"]), batch["hr"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
