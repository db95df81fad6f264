"""Train on pairs from WebDataset shards: python from_shards.py FOLDER_OF_TARS."""

import sys
from pathlib import Path

import torch
import webdataset
from torch import nn
from torch.utils.data import DataLoader

from degradations.torch import PairStream


def main(shards: str, epochs: int = 2) -> None:
    torch.manual_seed(0)
    tars = sorted(map(str, Path(shards).glob("*.tar")))
    # webdataset shares the shards out among workers, hence `named`
    photos = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode("rgb8")
    photos = photos.to_tuple("__key__", "png;jpg;jpeg;webp")
    pairs = PairStream(photos, "realesrgan", scale=4, seed=0, crop=64, named=True)
    loader = DataLoader(pairs, batch_size=4, num_workers=2)
    network = nn.Sequential(nn.Upsample(scale_factor=4, mode="bicubic"), nn.Conv2d(3, 3, 3, 1, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for epoch in range(epochs):  # pairs.set_epoch(n) goes on from the n-th
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
