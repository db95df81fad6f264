"""The same with whole batches degraded by the device: python on_device.py PHOTOS.

The workers only cut; what happens to each picture comes along as its trace.
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader

from degradations import Trace, device
from degradations.torch import Epochs, PairDataset


def main(photos: str, epochs: int = 2) -> None:
    torch.manual_seed(0)
    where = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    pairs = PairDataset(photos, "realesrgan", scale=4, seed=0, crop=64, apply=False)
    loader = DataLoader(pairs, batch_size=4, sampler=Epochs(pairs), num_workers=2)
    network = nn.Sequential(nn.Upsample(scale_factor=4, mode="bicubic"), nn.Conv2d(3, 3, 3, 1, 1))
    network.to(where)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for epoch in range(epochs):
        losses = []
        for batch in loader:
            hr = batch["hr"].to(where)
            lr = device.degrade([Trace.from_json(trace) for trace in batch["trace"]], hr)
            loss = nn.functional.l1_loss(network(lr), hr)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
