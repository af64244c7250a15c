"""The PyTorch half of ``bring_your_own.py``: any `nn.Module` with any optimiser; nothing of cmcore is needed here."""

import torch
from torch import nn


class Network(nn.Module):
    """A perceptron of a point and a time, (B, 2) and (B,); ``forward(x, c_noise)`` returns x's shape."""

    def __init__(self, width=192):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x, c_noise):
        time = c_noise[:, None]
        return self.layers(torch.cat([x, time, torch.cos(3 * time), torch.sin(3 * time)], dim=1))


def train(loss, batches, steps):
    """Minimise ``loss(net, *batch)`` and return the network."""
    torch.manual_seed(0)
    net = Network()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for k, batch in enumerate(batches):
        value = loss(net, *map(torch.as_tensor, batch))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if k % max(1, steps // 5) == 0:
            print(f"step {k:5}  loss {value.item():.4f}", flush=True)
    return net.requires_grad_(False)
