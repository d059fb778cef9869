"""The score network: a small convolutional denoiser that starts from what the signals already say.

Its input is what the prior N(0, I), the noisy image x_t and the signals y say together: the mean m and the standard
deviation r, per voxel, of a Gaussian (`guidance`). The network corrects that estimate in units of its deviation:

    D = m + r F(m, ln r, c_in x_t; sigma, features)

Where nothing was measured, m = c_skip x_t and r = c_out, and this is the preconditioning of EDM (Karras et al. 2022,
table 1), for images of root-mean-square one.

What the signals say without x_t does not change from step to step, nor from sample to sample. So a larger network, the
`Encoder`, looks at it once per frame, and the `Denoiser`, which runs steps x samples times, gets its features. It sees
the signals through a bank of filters, as images under white priors of several widths: which components of a scanner
hold how much shows in how these differ, and no single one of them is best for every image.

The parts are those that can later be fused into one kernel: 3x3 and 1x1 convolutions with channels in multiples of
16, SiLU, modulation per channel by the noise-level embedding, one down-sampling; no attention, no reduction over the
image.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpi_fast.guidance import CONDITION_CHANNELS, WIDTHS

IMAGE_CHANNELS = 3  # estimate, its deviation, x_t
LEVEL_FEATURES = 16

Modulation = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class NetworkConfig:
    """Widths and depths.

    Attributes
    ----------
    features : int
        Channels that the encoder hands to the denoiser.
    encoder_width, encoder_inner, encoder_blocks : int
        Channels at full and at half resolution, and residual blocks at half resolution, of the encoder.
    width, inner, blocks : int
        The same of the denoiser.
    embedding : int
        Width of the noise-level embedding.
    """

    features: int = 32
    encoder_width: int = 48
    encoder_inner: int = 96
    encoder_blocks: int = 3
    width: int = 32
    inner: int = 64
    blocks: int = 2
    embedding: int = 64

    def to_dict(self) -> dict[str, int]:
        """Plain numbers, as a checkpoint stores them."""
        return asdict(self)


def zeroed(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> nn.Module:
    """The layer with weights and bias zero: at the start of training it adds nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """``x + conv(SiLU(modulate(conv(SiLU(x)))))``, with the last convolution zero at the start of training."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        self.modulation = nn.Linear(embedding, 2 * width) if embedding else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def modulate(self, level: Tensor) -> Modulation:
        """Gain and shift of each channel, (B, width, 1, 1), at an embedded noise level (B, embedding)."""
        assert self.modulation is not None
        gain, shift = self.modulation(level)[:, :, None, None].chunk(2, dim=1)
        return 1 + gain, shift

    def forward(self, x: Tensor, modulation: Modulation | None) -> Tensor:
        """(B, width, ny, nx) -> (B, width, ny, nx)."""
        hidden = self.first(functional.silu(x))
        if modulation is not None:
            gain, shift = modulation
            hidden = hidden * gain.to(hidden.dtype) + shift.to(hidden.dtype)
        out: Tensor = x + self.second(functional.silu(hidden))
        return out


class UNet(nn.Module):
    """Residual blocks at full, half and again full resolution, for any grid, odd ones too."""

    def __init__(self, width: int, inner: int, blocks: int, embedding: int = 0) -> None:
        super().__init__()
        self.before = ResidualBlock(width, embedding)
        self.down = nn.Conv2d(width, inner, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(ResidualBlock(inner, embedding) for _ in range(blocks))
        self.up = nn.Conv2d(inner, 4 * width, 1)
        self.after = ResidualBlock(width, embedding)

    def modulate(self, level: Tensor) -> list[Modulation]:
        """What an embedded noise level (B, embedding) does to each residual block."""
        return [block.modulate(level) for block in (self.before, *self.middle, self.after)]

    def forward(self, x: Tensor, modulations: Sequence[Modulation] = ()) -> Tensor:
        """(B, width, ny, nx) -> (B, width, ny, nx)."""
        ny, nx = x.shape[2:]
        before, *middle, after = modulations or (None,) * (len(self.middle) + 2)
        x = self.before(x, before)
        half = self.down(x)
        for block, modulation in zip(self.middle, middle, strict=True):
            half = block(half, modulation)
        x = x + functional.pixel_shuffle(self.up(half), 2)[:, :, :ny, :nx]
        out: Tensor = self.after(x, after)
        return out


class Encoder(nn.Module):
    """What the signals say, once per frame."""

    widths: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("widths", torch.tensor(WIDTHS)[:, None, None], persistent=False)
        self.stem = nn.Conv2d(CONDITION_CHANNELS, config.encoder_width, 3, padding=1)
        self.body = UNet(config.encoder_width, config.encoder_inner, config.encoder_blocks)
        self.head = nn.Conv2d(config.encoder_width, config.features, 3, padding=1)

    def forward(self, condition: Tensor) -> Tensor:
        """Encode.

        Parameters
        ----------
        condition : (F, CONDITION_CHANNELS, ny, nx) float32
            Posterior means of the image under white priors of `guidance.WIDTHS`, and their deviations > 0.

        Returns
        -------
        (F, features, ny, nx) float32
        """
        mean, deviation = condition.chunk(2, dim=1)
        shown = mean * torch.rsqrt(self.widths), 0.5 * torch.log(deviation / self.widths)
        x = self.stem(torch.cat(shown, dim=1).to(self.stem.weight.dtype))
        features: Tensor = self.head(functional.silu(self.body(x)))
        return features.float()


class Denoiser(nn.Module):
    """One step of one sample."""

    frequencies: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.exp(torch.linspace(-1.0, 2.5, LEVEL_FEATURES // 2)))
        self.embed = nn.Sequential(
            nn.Linear(LEVEL_FEATURES, config.embedding),
            nn.SiLU(),
            nn.Linear(config.embedding, config.embedding),
            nn.SiLU(),
        )
        self.stem = nn.Conv2d(IMAGE_CHANNELS + config.features, config.width, 3, padding=1)
        self.body = UNet(config.width, config.inner, config.blocks, config.embedding)
        self.head = nn.Conv2d(config.width, 1, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def forward(self, image: Tensor, sigma: Tensor, features: Tensor) -> Tensor:
        """Denoise.

        Parameters
        ----------
        image : (B, 3, ny, nx) float32
            Estimate m, its deviation r > 0, and the noisy image x_t.
        sigma : (B,) float32
            Noise level of the sampler, positive.
        features : (B, features, ny, nx) float32
            Of the encoder.

        Returns
        -------
        (B, 1, ny, nx) float32: the posterior mean of the image.
        """
        estimate, deviation, noisy = image.chunk(3, dim=1)
        c_in = torch.rsqrt(1 + sigma * sigma)[:, None, None, None]
        x = torch.cat([estimate, 0.5 * torch.log(deviation), c_in * noisy, features], dim=1)
        x = self.body(self.stem(x.to(self.stem.weight.dtype)), self.modulations(sigma))
        with torch.autocast(x.device.type, enabled=False):  # the last layer is always float32
            correction: Tensor = self.head(functional.silu(x.float()))
        denoised: Tensor = estimate + deviation * correction
        return denoised

    def modulations(self, sigma: Tensor) -> list[Modulation]:
        """What noise levels (B,) do to the residual blocks, float32."""
        phase = 0.25 * torch.log(sigma)[:, None] * self.frequencies
        with torch.autocast(phase.device.type, enabled=False):
            return self.body.modulate(self.embed(torch.cat([torch.sin(phase), torch.cos(phase)], dim=1)))


class ScoreNetwork(nn.Module):
    """Encoder and denoiser, trained together."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.denoiser = Denoiser(config)

    def forward(self, condition: Tensor, image: Tensor, sigma: Tensor) -> Tensor:
        """Denoise ``B = F * draws`` images of F frames, those of one frame side by side; see `Denoiser`."""
        features = self.encoder(condition).repeat_interleave(len(image) // len(condition), dim=0)
        denoised: Tensor = self.denoiser(image, sigma, features)
        return denoised
