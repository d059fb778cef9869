"""Layers of the networks to compare with: a residual block, a U-Net, layers with zero initial weights."""

from torch import Tensor, nn
from torch.nn import functional


def zeroed(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> nn.Module:
    """The layer with weights and bias zero: at the start of training it adds nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ResidualConvolutions(nn.Module):
    """``x + conv(SiLU(conv(SiLU(x))))``, with the last convolution's weights zero at the start of training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, ny, nx) -> (B, width, ny, nx)."""
        out: Tensor = x + self.second(functional.silu(self.first(functional.silu(x))))
        return out


class UNet(nn.Module):
    """Residual blocks at full, half and again full resolution, for any grid, including odd sizes."""

    def __init__(self, width: int, inner: int, blocks: int) -> None:
        super().__init__()
        self.before = ResidualConvolutions(width)
        self.down = nn.Conv2d(width, inner, 3, stride=2, padding=1)
        self.middle = nn.Sequential(*(ResidualConvolutions(inner) for _ in range(blocks)))
        self.up = nn.Conv2d(inner, 4 * width, 1)
        self.after = ResidualConvolutions(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, ny, nx) -> (B, width, ny, nx)."""
        ny, nx = x.shape[2:]
        x = self.before(x)
        half = self.middle(self.down(x))
        x = x + functional.pixel_shuffle(self.up(half), 2)[:, :, :ny, :nx]
        out: Tensor = self.after(x)
        return out
