"""HFRM, the hierarchical feature rectification module, in its plain form and its exact identities.

With a feature map F of C channels and the deep context d = mean(Fdeep):

    w  = sigmoid(W2 relu(W1 d))                             global semantic gate
    F^ = F + gamma_s (F * w) + gamma_c DWConv15x15(F)       zero padding, one kernel a channel

`forward` is the specification. The other methods give the same numbers at another cost; they hold
in exact arithmetic (tests compare them in float64).

On a field there is a context for each window, [B, context_channels, k, k]; `spread` then brings the
gates to the cells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNEL_PX = 15

Spread = Callable[[Tensor], Tensor]
"""Values of windows [B, C, k, k] -> of all cells [B, C, H, W]; see `Windows.spread`."""
WeightedMeans = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""F [B, C, H, W] and K [C, 15, 15] -> mean(F) and mean(F * S) over the map, each [B, C]; S as in
`HFRM.tap_sums`."""


class HFRM(nn.Module):
    """Rectifies `channels` feature channels with `context_channels` of deep context."""

    def __init__(self, channels: int, context_channels: int, hidden: int) -> None:
        super().__init__()
        self.gamma_veto = nn.Parameter(torch.zeros(1))
        self.gamma_context = nn.Parameter(torch.zeros(1))
        self.veto_mlp = nn.Sequential(
            nn.Linear(context_channels, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=False),
        )
        self.context_conv = nn.Conv2d(
            channels, channels, KERNEL_PX, padding=KERNEL_PX // 2, groups=channels, bias=False
        )
        nn.init.constant_(self.context_conv.weight, 1 / KERNEL_PX**2)

    def gate(self, context: Tensor) -> Tensor:
        """Deep context [B, context_channels, ...] -> 1 + gamma_s w, [B, C, ...]."""
        rows = context.movedim(1, -1)
        # As a matrix, whatever the windows: ONNX then takes the weights of all as they are.
        hidden = self.veto_mlp(rows.flatten(0, -2)).unflatten(0, rows.shape[:-1])
        return 1 + self.gamma_veto * torch.sigmoid(hidden.movedim(-1, 1))

    def gate_map(self, context: Tensor, spread: Spread | None = None) -> Tensor:
        """1 + gamma_s w for each cell: [B, C, 1, 1] of one context, else [B, C, H, W]."""
        gate = self.gate(context)
        return gate[:, :, None, None] if spread is None else spread(gate)

    def forward(self, feature: Tensor, context: Tensor, spread: Spread | None = None) -> Tensor:
        """The plain form: F [B, C, H, W] and d [B, context_channels] -> F^ [B, C, H, W]."""
        gated = feature * self.gate_map(context, spread)
        rectified: Tensor = gated + self.gamma_context * self.context_conv(feature)
        return rectified

    def rectified_mean(
        self, feature: Tensor, context: Tensor, weighted_means: WeightedMeans | None = None
    ) -> Tensor:
        """mean(F^) over the map, [B, C], without a 15x15 convolution.

        The mean of a zero-padded convolution is a weighted mean of its input:
        mean(DWConv_K(F))_c = mean(F_c * S_c), with S from `tap_sums`. `weighted_means` computes
        both means in place of PyTorch's operations.
        """
        if weighted_means is None:
            height, width = feature.shape[-2:]
            sums = self.tap_sums(height, width)
            convolved = torch.einsum("bchw,chw->bc", feature, sums) / (height * width)
            mean = feature.mean((2, 3))
        else:
            mean, convolved = weighted_means(feature, self.context_conv.weight[:, 0])
        return mean * self.gate(context) + self.gamma_context * convolved

    def tap_sums(self, height: int, width: int) -> Tensor:
        """S [C, H, W]: for each pixel the sum of the kernel taps that land inside the map from it.

        Input pixel p reaches output pixel q through tap p - q + 7, so the taps that stay inside
        form a rectangle of the kernel; its sum is four look-ups in the 2-D prefix sum.
        """
        kernel = self.context_conv.weight[:, 0].double()  # differences of sums lose digits
        prefix = F.pad(kernel.cumsum(1).cumsum(2), (1, 0, 1, 0))  # [C, 16, 16]
        y0, y1 = _tap_range(height, kernel.device)
        x0, x1 = _tap_range(width, kernel.device)
        rows = prefix[:, y1] - prefix[:, y0]  # [C, H, 16]
        return (rows[:, :, x1] - rows[:, :, x0]).to(self.context_conv.weight.dtype)

    def cam_depthwise(
        self, feature: Tensor, context: Tensor, head: nn.Conv2d, spread: Spread | None = None
    ) -> Tensor:
        """CAM head(F^) [B, N, H, W] with gamma_c folded into the depthwise kernel."""
        weight = self.gamma_context[:, None, None, None] * self.context_conv.weight
        convolved = F.conv2d(feature, weight, padding=KERNEL_PX // 2, groups=feature.shape[1])
        out: Tensor = head(feature * self.gate_map(context, spread) + convolved)
        return out

    def separable_kernels(self, head: nn.Conv2d) -> tuple[Tensor, Tensor, Tensor]:
        """The weights of `cam_separable`: M, the shift and W.

        M [15 N, C, 15, 1] is gamma_c W[n,c] K[c], a column of taps for each dx and class; the shift
        [N, 15 N, 1, 15] is one where its tap is the dx of its channel; W is the head's [N, C].
        """
        classes, channels = head.weight.shape[:2]
        weight = head.weight[:, :, 0, 0]
        kernel = self.gamma_context * self.context_conv.weight[:, 0]  # [C, dy, dx]
        vertical = torch.einsum("nc,cyx->xncy", weight, kernel)
        vertical = vertical.reshape(KERNEL_PX * classes, channels, KERNEL_PX, 1)
        taps, labels = (
            torch.eye(size, dtype=weight.dtype, device=weight.device)
            for size in (KERNEL_PX, classes)
        )
        shift = torch.einsum("xk,nm->nxmk", taps, labels)
        return vertical, shift.reshape(classes, KERNEL_PX * classes, 1, KERNEL_PX), weight

    def cam_separable(
        self,
        feature: Tensor,
        context: Tensor,
        head: nn.Conv2d,
        kernels: tuple[Tensor, Tensor, Tensor] | None = None,
        spread: Spread | None = None,
    ) -> Tensor:
        """CAM head(F^) [B, N, H, W] from dense convolutions only; F^ is never formed.

        [W * (1 + gamma_s w)] . F + conv15x15_{C->N}(F; gamma_c W[n,c] K[c]), the second term as a
        15x1 convolution to 15 N channels and a fixed 1x15 one that shifts and adds them. `kernels`
        are those of `separable_kernels`, where they are there already.
        """
        vertical, shift, weight = kernels or self.separable_kernels(head)
        columns = F.conv2d(feature, vertical, padding=(KERNEL_PX // 2, 0))  # [B, 15 N, H, W]
        context_term = F.conv2d(columns, shift, bias=head.bias, padding=(0, KERNEL_PX // 2))
        if spread is not None:
            gated_feature = feature * self.gate_map(context, spread)
            return context_term + F.conv2d(gated_feature, weight[:, :, None, None])
        gated_weight = weight * self.gate(context)[:, None, :]  # [B, N, C]
        gated = torch.matmul(gated_weight, feature.flatten(2))  # [B, N, H W]
        return context_term + gated.view_as(context_term)


def _tap_range(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First and one-past-last tap, each [size], that stay inside a map of `size` pixels."""
    p = torch.arange(size, device=device)
    radius = KERNEL_PX // 2
    first = (p - (size - 1) + radius).clamp(min=0)
    last = (p + radius).clamp(max=KERNEL_PX - 1) + 1
    return first, last
