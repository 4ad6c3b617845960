"""A small vision transformer for crops of 112 pixels (InsightFace's ViT-T).

Source: Dosovitskiy et al. 2021, as InsightFace's arcface_torch builds it: patches of 9 pixels, no
class token, ReLU6, and a head over all tokens together. Dropping tokens in training follows masked
autoencoders (He et al. 2022), dropping residual branches Huang et al. 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facenet.errors import SettingsError
from facenet.train.backbones.backbone import Backbone, BackboneKind
from facenet.train.backbones.heads import check_crops, check_sizes, in_full_precision


@dataclass(frozen=True, slots=True)
class ViTSettings:
    """The options of a small vision transformer; the defaults are InsightFace's ViT-T.

    embedding_size: d. input_size: side of the crops in pixels. patch: side of a patch in pixels;
    rows and columns beyond the last whole patch are not looked at (4 of 112 for patches of 9).
    width: values in a token. depth: blocks. heads: attention heads, a divisor of width. drop_path:
    share of the pictures of a batch whose residual branch is dropped in the last block in training,
    growing evenly from 0 in the first. masked_tokens: share of the tokens of each picture that
    training leaves out. Raises SettingsError for what does not fit.
    """

    embedding_size: int = 512
    input_size: int = 112
    patch: int = 9
    width: int = 256
    depth: int = 12
    heads: int = 8
    drop_path: float = 0.05
    masked_tokens: float = 0.0

    def __post_init__(self) -> None:
        check_sizes(embedding_size=self.embedding_size, input_size=self.input_size, smallest=16)
        for name, value, largest in (
            ("patch", self.patch, self.input_size),
            ("width", self.width, 4096),
            ("depth", self.depth, 100),
            ("heads", self.heads, self.width),
        ):
            if not 1 <= value <= largest:
                raise SettingsError(
                    f"{name} should be between 1 and {largest}; got {value!r:.40}. "
                    "Leave it out for the value of ViT-T."
                )
        if self.width % self.heads:
            raise SettingsError(
                f"width should be a multiple of heads; got {self.width} and {self.heads}. "
                "256 and 8 are usual."
            )
        for name, share in (("drop_path", self.drop_path), ("masked_tokens", self.masked_tokens)):
            if not 0.0 <= share < 1.0:
                raise SettingsError(
                    f"{name} should be a share of at least 0 and below 1; got {share!r:.40}. "
                    "0 leaves it out."
                )

    @property
    def tokens(self) -> int:
        """How many patches a picture has."""
        return (self.input_size // self.patch) ** 2


class Patches(nn.Module):
    """Crops (n, 3, s, s) -> tokens (n, t, width), each patch's place added."""

    def __init__(self, settings: ViTSettings) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, settings.width, settings.patch, stride=settings.patch)
        self.places = nn.Parameter(torch.zeros(1, settings.tokens, settings.width))
        nn.init.trunc_normal_(self.places, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Crops -> tokens, row by row."""
        tokens: Tensor = self.proj(images).flatten(2).transpose(1, 2)
        return tokens + self.places


class TokenMask(nn.Module):
    """Leaves out a share of the tokens of each picture, and puts one learned token in their place.

    The blocks between `leave_out` and `put_back` see only the kept tokens.
    """

    def __init__(self, width: int, share: float) -> None:
        super().__init__()
        self.share = share
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.token, std=0.02)

    def leave_out(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (n, t, w) -> the kept ones (n, k, w), and where they stood, int64 (n, k).

        k = t * (1 - share), rounded down, and at least 1.
        """
        count = max(1, int(tokens.shape[1] * (1.0 - self.share)))
        order = torch.rand(tokens.shape[:2], device=tokens.device).argsort(dim=1)
        kept = order[:, :count]
        return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2])), kept

    def put_back(self, tokens: Tensor, kept: Tensor, count: int) -> Tensor:
        """The kept tokens (n, k, w) at their places among count; the learned one elsewhere."""
        whole = self.token.to(tokens.dtype).expand(tokens.shape[0], count, -1)
        return whole.scatter(1, kept[..., None].expand(-1, -1, tokens.shape[2]), tokens)


class DropPath(nn.Module):
    """In training: 0 for a share of the pictures, the others scaled up so that the mean stays."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, w) -> the same shape."""
        if not self.training or self.share == 0.0:
            return x
        keep = 1.0 - self.share
        kept = torch.rand(x.shape[0], 1, 1, device=x.device) < keep
        return x * (kept.to(x.dtype) / keep)


class Attention(nn.Module):
    """Multi-head self-attention, softmax in float32: tokens (n, t, w) -> (n, t, w)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, t, w) -> tokens (n, t, w)."""
        n, t, width = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)
        exact = torch.promote_types(scores.dtype, torch.float32)
        shares = scores.softmax(dim=-1, dtype=exact).to(v.dtype)
        out: Tensor = self.proj((shares @ v).transpose(1, 2).reshape(n, t, width))
        return out

    def extra_macs(self, x: Tensor) -> int:
        """The two products of a picture that no layer makes: t * t * w each (see counting.py)."""
        return 2 * x.shape[1] ** 2 * x.shape[2]


class Block(nn.Module):
    """Attention, then two full connections, each on normed tokens and added to them."""

    def __init__(self, settings: ViTSettings, drop_path: float) -> None:
        super().__init__()
        width = settings.width
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, settings.heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU6(), nn.Linear(4 * width, width)
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, t, w) -> tokens (n, t, w)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class ViT(Backbone):
    """Patches, blocks, and a head over all tokens together."""

    def __init__(self, settings: ViTSettings) -> None:
        super().__init__()
        self.embedding_size = settings.embedding_size
        self.input_size = settings.input_size
        self.patches = Patches(settings)
        self.mask: TokenMask | None = None
        if settings.masked_tokens:
            self.mask = TokenMask(settings.width, settings.masked_tokens)
        last = max(1, settings.depth - 1)
        self.encoder = nn.ModuleList(
            Block(settings, settings.drop_path * number / last) for number in range(settings.depth)
        )
        self.norm = nn.LayerNorm(settings.width)
        self.feature = nn.Sequential(
            nn.Linear(settings.tokens * settings.width, settings.width, bias=False),
            nn.BatchNorm1d(settings.width, eps=2e-5),
            nn.Linear(settings.width, settings.embedding_size, bias=False),
            nn.BatchNorm1d(settings.embedding_size, eps=2e-5),
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Crops (n, 3, s, s) -> raw embeddings (n, d). Raises ImageError for another size."""
        check_crops(images, self.input_size)
        x: Tensor = self.patches(images)
        if self.mask is not None and self.training:
            count = x.shape[1]
            x, kept = self.mask.leave_out(x)
            x = self.mask.put_back(self.norm(self.run(self.encoder, x)), kept, count)
        else:
            x = self.norm(self.run(self.encoder, x))
        return in_full_precision(self.feature, x.flatten(1))

    def blocks(self) -> dict[str, tuple[nn.Module, ...]]:
        """patches, block1 and on (12 in ViT-T), embedding (with the last norm)."""
        first = (self.patches,) if self.mask is None else (self.patches, self.mask)
        encoder = {f"block{number}": (block,) for number, block in enumerate(self.encoder, 1)}
        return {"patches": first, **encoder, "embedding": (self.norm, self.feature)}


def build_vit(settings: ViTSettings | None = None) -> ViT:
    """A vision transformer; None: ViT-T."""
    return ViT(settings or ViTSettings())


KINDS: dict[str, BackboneKind] = {
    "vit_tiny": BackboneKind(build_vit, ViTSettings, 112, "InsightFace's ViT-T (arcface_torch)")
}
