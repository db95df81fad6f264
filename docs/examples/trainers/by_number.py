"""Train any network on pairs: python by_number.py PHOTOS. A folder, read by number."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader

from degradations.torch import Epochs, PairDataset


def main(photos: str, epochs: int = 2) -> None:
    torch.manual_seed(0)
    pairs = PairDataset(photos, "realesrgan", scale=4, seed=0, crop=64)
    loader = DataLoader(pairs, batch_size=4, sampler=Epochs(pairs), num_workers=2)
    network = nn.Sequential(nn.Upsample(scale_factor=4, mode="bicubic"), nn.Conv2d(3, 3, 3, 1, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for epoch in range(epochs):  # each pass draws anew; sampler.set_epoch(n) goes on from the n-th
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
