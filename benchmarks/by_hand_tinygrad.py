"""Consistency training and distillation as one would write them directly in tinygrad: all formulas inlined."""

import copy

from tinygrad import Context, Tensor, TinyJit, nn
from tinygrad.nn.state import get_parameters, get_state_dict

RHO, T_MIN, T_MAX = 7.0, 0.002, 80.0
LOW, HIGH = T_MIN ** (1 / RHO), T_MAX ** (1 / RHO)


def grid(i, n):
    return (LOW + i / (n - 1) * (HIGH - LOW)) ** RHO


def apply(net, x, t, sigma, t_min):
    """The network under the scalings of the consistency function (t_min = 0: of the denoiser)."""
    c_noise = 0.25 * t.log()
    t = t.reshape(-1, *(1,) * (x.ndim - 1))
    root = (t**2 + sigma**2).sqrt()
    return sigma**2 / ((t - t_min) ** 2 + sigma**2) * x + sigma * (t - t_min) / root * net(x / root, c_noise)


def copied(net):
    memo = {id(t): t.clone().realize() for t in get_state_dict(net).values()}
    return copy.deepcopy(net, memo)


class Training:
    """The networks, the optimiser and ``step(x0, n, mu, ema)``; distillation where a teacher is given."""

    def __init__(self, net, teacher, keep_target, sigma, optimizer, lr, seed):
        if optimizer != "adam":
            raise SystemExit("tinygrad has no RAdam; compare with --optimizer adam.")
        Tensor.manual_seed(seed)
        self.net, self.teacher, self.sigma = copied(net), teacher, sigma
        self.target = copied(net) if keep_target else self.net
        self.ema = copied(net)
        averages = [(self.ema, "ema"), (self.target, "mu")] if keep_target else [(self.ema, "ema")]
        self.optimizer = nn.optim.Adam(get_parameters(self.net), lr=lr)

        def update(x0, z, u, n, mu, ema):
            decay = {"mu": mu, "ema": ema}
            loss = self.compute_loss(x0, z, u, n)
            self.optimizer.zero_grad()
            loss.backward()
            changed = self.optimizer.schedule_step()
            for average, name in averages:
                for a, w in zip(get_parameters(average), get_parameters(self.net), strict=True):
                    changed.append(a.assign(decay[name] * a + (1 - decay[name]) * w))
            return loss.realize(*changed)

        def draw_and_update(x0, n, mu, ema):
            return update(x0, Tensor.randn(*x0.shape), Tensor.rand(x0.shape[0]), n, mu, ema)

        self.update, self.draw_and_update = TinyJit(update), TinyJit(draw_and_update)

    def compute_loss(self, x0, z, u, n):
        column = (-1, *(1,) * (x0.ndim - 1))
        i = (u * (n - 1)).floor().minimum(n - 2)
        r, t = grid(i, n), grid(i + 1, n)
        rc, tc = r.reshape(column), t.reshape(column)
        x_t = x0 + tc * z
        if self.teacher is None:
            x_r = x0 + rc * z
        else:
            first = (x_t - apply(self.teacher, x_t, t, self.sigma, 0.0)) / tc
            x_e = x_t + (rc - tc) * first
            second = (x_e - apply(self.teacher, x_e, r, self.sigma, 0.0)) / rc
            x_r = (x_t + (rc - tc) * (first + second) / 2).detach()
        target = apply(self.target, x_r, r, self.sigma, T_MIN).detach()
        return ((apply(self.net, x_t, t, self.sigma, T_MIN) - target) ** 2).mean()

    def step(self, x0, n, mu, ema, draws=None):
        scalars = [Tensor([v]).realize() for v in (n, mu, ema)]
        scalars = [s if not s.uop.is_virtual else s.clone().realize() for s in scalars]
        with Context(TRAINING=1):
            if draws is None:
                return self.draw_and_update(x0, *scalars)
            return self.update(x0, *draws, *scalars)

    def averaged(self):
        return {name: t.numpy() for name, t in get_state_dict(self.ema).items()}
