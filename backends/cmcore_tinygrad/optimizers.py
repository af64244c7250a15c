"""tinygrad's Adam and AdamW, and RAdam, which it lacks."""

from __future__ import annotations

from tinygrad import Tensor, dtypes
from tinygrad.dtype import least_upper_dtype
from tinygrad.nn.optim import LAMB

from cmcore.optimization import Optimizer


class RAdam(LAMB):
    """Rectified Adam (Liu et al., ICLR 2020, algorithm 2), as PyTorch computes it.

    Adam's moments, but a step of its own: the bias correction ``first`` and the rectified factor ``adaptive``, (1,)
    tensors that `cmcore.optimization.radam_factors` gives for each step (0: the variance is not yet tractable, so there is no
    adaptation). They come from the host because their formula loses all digits in float32.
    """

    first: Tensor
    adaptive: Tensor

    def _step(self, params: list[Tensor], grads: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        updates = []
        for p, g, m, v in zip(params, grads, self.m, self.v, strict=True):
            m.assign(self.b1 * m + (1.0 - self.b1) * g)
            v.assign(self.b2 * v + (1.0 - self.b2) * (g * g))
            scale = (self.adaptive > 0).where(self.adaptive / (v.sqrt() + self.eps), 1.0)
            updates.append((self.lr * self.first * scale * m).cast(p.dtype))
        return updates, self.m + self.v


def build(settings: Optimizer, params: list[Tensor], others: list[Tensor]) -> LAMB:
    """Return the optimiser of these settings, which remembers in the parameters' precision, not only in float32.

    The other tensors (running statistics) are computed with each step.
    """
    kind = RAdam if settings.algorithm == "radam" else LAMB
    built = kind(params + others, settings.lr, *settings.betas, settings.eps, settings.weight_decay, adam=True)
    built.m, built.v = ([Tensor.zeros(*p.shape, dtype=p.dtype, device=p.device) for p in params] for _ in range(2))
    widest = least_upper_dtype(dtypes.float32, *(p.dtype for p in params))
    built.b1_t, built.b2_t = (Tensor.ones((1,), dtype=widest, device=built.device) for _ in range(2))
    return built


def state(optimizer: LAMB, names: list[str]) -> dict[str, Tensor]:
    """Return what the optimiser remembers, by name."""
    moments = {f"{n}/{kind}": t for kind in ("m", "v") for n, t in zip(names, getattr(optimizer, kind), strict=True)}
    if isinstance(optimizer, RAdam):
        return moments
    return moments | {"b1_t": optimizer.b1_t, "b2_t": optimizer.b2_t}


def clipped(gradients: list[Tensor], bound: float) -> list[Tensor]:
    """Return the gradients scaled down together to a global norm of at most ``bound``."""
    norm = Tensor.stack(*[(g * g).sum() for g in gradients]).sum().sqrt()
    scale = (norm > bound).where(bound / norm, 1.0)
    return [g * scale for g in gradients]
