"""The diffusion transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cmcore.backend import namespace
from cmcore.networks.architecture import Architecture
from cmcore.networks.embedding import Checked, check_settings
from cmcore.networks.layers import (
    GELU,
    Attention,
    Dropout,
    Embedding,
    Fourier,
    LayerNorm,
    Linear,
    LogWeight,
    PatchEmbedding,
    SiLU,
    SineCosine,
    Weight,
    check_end,
)
from cmcore.networks.part import Part
from cmcore.types import Array


@dataclass(frozen=True)
class DiT(Architecture):
    """A transformer on the patches of an image or latent (C, H, W) (Peebles & Xie, 2023, arXiv:2212.09748, adaLN-Zero)::

        h = x_embedder(x) + pos_embed                      a token for each patch
        e = t_embedder(c_noise) + y_embedder(label) + end_embedder(c_end)
        for each block:  (shift1, scale1, gate1, shift2, scale2, gate2) = adaLN_modulation(e)
                         h = h + gate1 * attn(norm1(h) * (1 + scale1) + shift1)
                         h = h + gate2 * mlp(norm2(h) * (1 + scale2) + shift2)
        F = linear(norm_final(h) * (1 + scale) + shift)    (shift, scale) = adaLN_modulation(e), the final layer's

    Names and shapes of the weights are those of the authors' code, but for ``pos_embed``, which is there only where positions
    are learned, then as ``pos_embed.weight``, and but for the number of channels that come out, which is that of x: there is no
    learned variance. The modulations, the last linear layer and the end's last one are 0 at first, so F is 0 and depends on
    c_end only after training. The deviations of the other initial weights are the authors'.

    Times have the features ``[cos(w c), sin(w c)]`` with ``w_k = max_frequency max_period^(-2 k / features)``: the authors' own,
    for times from 0 to 1,000, are those of ``max_frequency=1.0, max_period=10000.0``. A negative label takes the label table's
    last row, that of no label. ``dropout`` acts on what attention and perceptron add in each block.
    """

    shape: tuple[int, ...]
    patch: Annotated[int, "side of a patch in pixels, which must divide the image's sides"] = 2
    width: Annotated[int, "channels of each token"] = 384
    blocks: Annotated[int, "number of blocks"] = 12
    heads: Annotated[int, "heads of the attention, which must divide the width"] = 6
    classes: int = 0
    mlp_ratio: Annotated[float, "channels within a block's perceptron, as a multiple of the width"] = 4.0
    qkv_bias: Annotated[bool, "whether queries, keys and values have a bias"] = True
    learned_positions: Annotated[bool, "a learned table of positions instead of fixed sines and cosines"] = False
    dropout: Annotated[float, "rate of dropout on what attention and perceptron add"] = 0.0
    features: Annotated[int, "cosines and sines by which a time enters"] = 256
    max_frequency: Annotated[float, "highest frequency of the times' features"] = 16.0
    max_period: Annotated[float, "ratio of the highest frequency to the one that would follow the lowest"] = 16.0
    two_times: bool = False
    log_weight: bool = False

    kind: ClassVar[str] = "dit"
    added: ClassVar[tuple[str, ...]] = ("end_embedder", "log_weight")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, "patch", "width", "blocks", "heads")
        if len(self.shape) != 3:
            raise ValueError(f"A diffusion transformer needs data of shape (C, H, W), got {self.shape}.")
        _, rows, columns = self.shape
        if rows % self.patch or columns % self.patch:
            fitting = [str(p) for p in range(1, min(rows, columns) + 1) if not (rows % p or columns % p)]
            raise ValueError(
                f"Images of {rows} x {columns} cannot be cut into patches of {self.patch} x {self.patch}; use sides divisible by "
                f"{self.patch}, or a patch that divides both: {', '.join(fitting)}."
            )
        if self.width % self.heads:
            raise ValueError(
                f"The width {self.width} is not divisible into {self.heads} heads; choose a multiple of {self.heads}."
            )
        if self.width % 4 and not self.learned_positions:
            raise ValueError(
                f"Sines and cosines of two coordinates need a width divisible by 4, got {self.width}; choose another, or "
                "learned_positions=true."
            )
        if not self.width * self.mlp_ratio >= 1:
            raise ValueError(f"The perceptron needs a channel at least, got mlp_ratio={self.mlp_ratio}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"The rate of dropout must be at least 0 and less than 1, got {self.dropout}.")
        if not self.max_period > 1:
            raise ValueError(f"The network's max_period must be above 1, got {self.max_period}.")

    def part(self) -> Part:
        """Return the network."""
        return Transformer(self)

    def frequencies(self) -> tuple[float, ...]:
        """Return the frequencies of the times' features, falling."""
        half = self.features // 2
        return tuple(self.max_frequency * self.max_period ** (-k / half) for k in range(half))


class Transformer(Checked):
    """`DiT`."""

    def __init__(self, settings: DiT) -> None:
        (c, rows, columns), p, width = settings.shape, settings.patch, settings.width
        w = settings.frequencies()
        self.shape, self.classes, self.two_times = tuple(settings.shape), settings.classes, settings.two_times
        self.patch, self.learned_positions = p, settings.learned_positions
        self.x_embedder = PatchEmbedder(c, width, p)
        self.t_embedder = TimeEmbedder(w, width)
        self.y_embedder = LabelEmbedder(settings.classes, width) if settings.classes else None
        if settings.two_times:
            self.end_embedder = TimeEmbedder(w, width, zero=True)
        rows, columns = rows // p, columns // p
        self.pos_embed = (
            Weight((rows * columns, width), std=0.02)
            if settings.learned_positions
            else SineCosine(rows, columns, width)
        )
        self.blocks = [Block(settings) for _ in range(settings.blocks)]
        self.final_layer = FinalLayer(width, p * p * c)
        self.log_weight = LogWeight(w, times=2 if settings.two_times else 1, enabled=settings.log_weight)

    def __call__(
        self,
        x: Array,
        c_noise: Array,
        label: Array | None = None,
        c_end: Array | None = None,
        dropout: Array | None = None,
    ) -> Array:
        """Return F(x, c_noise, label, c_end, dropout), shaped like x."""
        self.check(x, c_noise, label)
        check_end(self.two_times, c_noise, c_end)
        e = self.t_embedder(c_noise)
        if self.y_embedder is not None:
            e = e + self.y_embedder(label)
        if c_end is not None:
            e = e + self.end_embedder(c_end)
        h = self.x_embedder(x)
        h = h + (self.pos_embed() if self.learned_positions else self.pos_embed(h))
        for block in self.blocks:
            h = block(h, e, dropout)
        return self.image(self.final_layer(h, e), x)

    def image(self, h: Array, x: Array) -> Array:
        """Return tokens, whose channels are a patch's (rows, columns, C), as images shaped like x."""
        xp, p, (b, c, rows, columns) = namespace(h), self.patch, x.shape
        patches = xp.reshape(h, (b, rows // p, columns // p, p, p, c))
        return xp.reshape(xp.permute_dims(patches, (0, 5, 1, 3, 2, 4)), (b, c, rows, columns))


class PatchEmbedder(Part):
    """A token of each patch."""

    def __init__(self, c_in: int, width: int, patch: int) -> None:
        self.proj = PatchEmbedding(c_in, width, patch, gain=_xavier(c_in * patch * patch, width))

    def __call__(self, x: Array) -> Array:
        """Return images as tokens (B, N, width)."""
        return self.tokens(self.proj(self.enter(x)))


class TimeEmbedder(Part):
    """A perceptron on the features of a time; its result is 0 at first where ``zero`` is True."""

    def __init__(self, frequencies: tuple[float, ...], width: int, zero: bool = False) -> None:
        features = 2 * len(frequencies)
        first = Linear(features, width, gain=0.02 * math.sqrt(features))
        second = Linear(width, width, gain=0.0 if zero else 0.02 * math.sqrt(width))
        self.phi, self.mlp = Fourier(frequencies), [first, SiLU(), second]

    def __call__(self, c: Array) -> Array:
        """Return the embedding of times (B,), (B, width)."""
        e = self.phi(c)
        for layer in self.mlp:
            e = layer(e)
        return e


class LabelEmbedder(Part):
    """A row of each class, and one, the last, of no label."""

    def __init__(self, classes: int, width: int) -> None:
        self.classes, self.embedding_table = classes, Embedding(classes + 1, width, std=0.02)

    def __call__(self, label: Array) -> Array:
        """Return the rows of labels (B,), (B, width)."""
        xp = namespace(label)
        return self.embedding_table(xp.where(label < 0, xp.full_like(label, self.classes), label))


class Block(Part):
    """Attention and a perceptron, each modulated by the embedding before and after."""

    def __init__(self, settings: DiT) -> None:
        width = settings.width
        self.norm1, self.norm2 = (LayerNorm(width, eps=1e-6, affine=False) for _ in range(2))
        self.attn = SelfAttention(width, settings.heads, settings.qkv_bias)
        self.mlp = Perceptron(width, int(width * settings.mlp_ratio))
        self.drop1, self.drop2 = Dropout(settings.dropout), Dropout(settings.dropout)
        self.adaLN_modulation = [SiLU(), Linear(width, 6 * width, gain=0.0)]

    def __call__(self, h: Array, e: Array, dropout: Array | None) -> Array:
        """Return the tokens h after the block."""
        silu, linear = self.adaLN_modulation
        modulation = self.per_channel(linear(silu(e)), h)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.split(modulation, 6)
        h = h + gate1 * self.drop1(self.attn(self.norm1(h) * (1 + scale1) + shift1), dropout)
        return h + gate2 * self.drop2(self.mlp(self.norm2(h) * (1 + scale2) + shift2), dropout)


class SelfAttention(Part):
    """Attention of tokens to each other."""

    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        self.qkv = Linear(width, 3 * width, bias=qkv_bias, gain=_xavier(width, 3 * width))
        self.attention, self.proj = Attention(heads), Linear(width, width, gain=_xavier(width, width))

    def __call__(self, h: Array) -> Array:
        """Return tokens, shaped like h."""
        return self.proj(self.attention(*self.split(self.qkv(h), 3)))


class Perceptron(Part):
    """Two linear layers on each token."""

    def __init__(self, width: int, hidden: int) -> None:
        self.fc1, self.gelu = Linear(width, hidden, gain=_xavier(width, hidden)), GELU()
        self.fc2 = Linear(hidden, width, gain=_xavier(hidden, width))

    def __call__(self, h: Array) -> Array:
        """Return tokens, shaped like h."""
        return self.fc2(self.gelu(self.fc1(h)))


class FinalLayer(Part):
    """From tokens to the pixels of their patches."""

    def __init__(self, width: int, n_out: int) -> None:
        self.norm_final, self.linear = LayerNorm(width, eps=1e-6, affine=False), Linear(width, n_out, gain=0.0)
        self.adaLN_modulation = [SiLU(), Linear(width, 2 * width, gain=0.0)]

    def __call__(self, h: Array, e: Array) -> Array:
        """Return (B, N, n_out)."""
        silu, linear = self.adaLN_modulation
        shift, scale = self.halves(self.per_channel(linear(silu(e)), h))
        return self.linear(self.norm_final(h) * (1 + scale) + shift)


def _xavier(n_in: int, n_out: int) -> float:
    """The gain of Glorot & Bengio (2010): the variance is 2 / (n_in + n_out)."""
    return math.sqrt(2 * n_in / (n_in + n_out))
