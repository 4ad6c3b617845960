"""MobileFaceNet as TensorFlow computes it: the built-in model's network.

Source: sirius-ai/MobileFaceNet_TF. It is the paper's network, but for one thing: with a stride of
two TensorFlow's SAME pads only below and to the right, where torch pads on all sides, so that the
windows lie one pixel further on.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

from facenet.train.backbones.backbone import BackboneKind
from facenet.train.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetSettings


class LatePaddedConv(nn.Conv2d):
    """A convolution of stride 2 and side 3 that pads one row below and one column to the right."""

    def forward(self, input: Tensor) -> Tensor:
        """Feature map (n, c, h, w), h and w even -> (n, c', h / 2, w / 2)."""
        return super().forward(pad(input, (0, 1, 0, 1)))


class MobileFaceNetTf(MobileFaceNet):
    """The network, with the names of `MobileFaceNet`'s parameters."""

    def __init__(self, settings: MobileFaceNetSettings) -> None:
        super().__init__(1, settings)
        for parent in list(self.modules()):
            for name, conv in list(parent.named_children()):
                if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2):
                    setattr(parent, name, _late(conv))


def _late(conv: nn.Conv2d) -> LatePaddedConv:
    """The same convolution with the other padding, and with the same weights."""
    made = LatePaddedConv(
        conv.in_channels, conv.out_channels, 3, stride=2, groups=conv.groups, bias=False
    )
    made.weight = conv.weight
    return made


def build_mobilefacenet_tf(settings: MobileFaceNetSettings | None = None) -> MobileFaceNetTf:
    """The network of the built-in model (192 values there); None: 512 values."""
    return MobileFaceNetTf(settings or MobileFaceNetSettings())


KINDS: dict[str, BackboneKind] = {
    "mobilefacenet_tf": BackboneKind(
        build_mobilefacenet_tf, MobileFaceNetSettings, 112, "sirius-ai/MobileFaceNet_TF"
    ),
}
