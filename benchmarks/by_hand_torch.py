"""Consistency training and distillation as one would write them directly in PyTorch: all formulas inlined."""

import copy

import torch

RHO, T_MIN, T_MAX = 7.0, 0.002, 80.0
LOW, HIGH = T_MIN ** (1 / RHO), T_MAX ** (1 / RHO)


def grid(i, n):
    return (LOW + i / (n - 1) * (HIGH - LOW)) ** RHO


def apply(net, x, t, sigma, t_min):
    """The network under the scalings of the consistency function (t_min = 0: of the denoiser)."""
    shape = (-1,) + (1,) * (x.ndim - 1)
    t = t.reshape(shape)
    root = torch.sqrt(t**2 + sigma**2)
    out = net(x / root, 0.25 * torch.log(t.flatten()))
    return sigma**2 / ((t - t_min) ** 2 + sigma**2) * x + sigma * (t - t_min) / root * out


class Training:
    """The networks, the optimiser and ``step(x0, n, mu, ema)``; distillation where a teacher is given."""

    def __init__(self, net, teacher, keep_target, sigma, optimizer, lr, seed):
        self.net = copy.deepcopy(net)
        self.target = copy.deepcopy(net).requires_grad_(False) if keep_target else None
        self.teacher = teacher and copy.deepcopy(teacher).requires_grad_(False)
        self.ema = [p.detach().clone() for p in self.net.parameters()]
        if optimizer == "adam":
            self.optimizer = torch.optim.Adam(self.net.parameters(), lr=lr, fused=True)
        else:
            self.optimizer = torch.optim.RAdam(self.net.parameters(), lr=lr, foreach=True)
        self.generator = torch.Generator().manual_seed(seed)
        self.parameters = list(self.net.parameters())
        self.target_parameters = list(self.target.parameters()) if keep_target else []
        self.sigma = sigma
        self.loss = torch.compile(self.compute_loss, dynamic=False)

    def compute_loss(self, x0, z, u, n):
        shape = (-1,) + (1,) * (x0.ndim - 1)
        i = torch.minimum(torch.floor(u * (n - 1)), n - 2)
        r, t = grid(i, n), grid(i + 1, n)
        x_t = x0 + t.reshape(shape) * z
        with torch.no_grad():
            if self.teacher is None:
                x_r = x0 + r.reshape(shape) * z
            else:
                dt = (r - t).reshape(shape)
                first = (x_t - apply(self.teacher, x_t, t, self.sigma, 0.0)) / t.reshape(shape)
                x_e = x_t + dt * first
                second = (x_e - apply(self.teacher, x_e, r, self.sigma, 0.0)) / r.reshape(shape)
                x_r = x_t + dt * (first + second) / 2
            target = apply(self.target or self.net, x_r, r, self.sigma, T_MIN)
        return torch.mean((apply(self.net, x_t, t, self.sigma, T_MIN) - target) ** 2)

    def step(self, x0, n, mu, ema, draws=None):
        if draws is None:
            z = torch.randn(x0.shape, generator=self.generator)
            u = torch.rand(x0.shape[0], generator=self.generator)
        else:
            z, u = draws
        self.optimizer.zero_grad()
        loss = self.loss(x0, z, u, torch.tensor(n))
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.parameters, 1 - ema)
            if self.target is not None:
                torch._foreach_lerp_(self.target_parameters, self.parameters, 1 - mu)
        return loss.detach()

    def averaged(self):
        return {name: e.numpy() for (name, _), e in zip(self.net.named_parameters(), self.ema, strict=True)}
