"""Networks of the benchmark: well-known architectures with random weights, as their users write them.

Each function gives a model in evaluation and a signal of a usual length; ``LIVE`` says in what chunks those that
run live are fed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class SeparatorBlock(nn.Module):
    """A block of Conv-TasNet: 1x1, depthwise, and 1x1 to what goes on and what is summed up."""

    def __init__(self, channels: int, hidden: int, skip: int, dilation: int) -> None:
        super().__init__()
        self.expand = nn.Conv1d(channels, hidden, 1)
        self.act1, self.norm1 = nn.PReLU(), nn.GroupNorm(1, hidden, eps=1e-8)
        self.depthwise = nn.Conv1d(hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden)
        self.act2, self.norm2 = nn.PReLU(), nn.GroupNorm(1, hidden, eps=1e-8)
        self.onward, self.skip = nn.Conv1d(hidden, channels, 1), nn.Conv1d(hidden, skip, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm1(self.act1(self.expand(x)))
        y = self.norm2(self.act2(self.depthwise(y)))
        return x + self.onward(y), self.skip(y)


class ConvTasNet(nn.Module):
    """Two speakers from one microphone: 2 repeats of 8 blocks."""

    def __init__(self, filters: int = 512, channels: int = 128, hidden: int = 512, repeats: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, filters, 16, stride=8, padding=8, bias=False)
        self.norm = nn.GroupNorm(1, filters, eps=1e-8)
        self.bottleneck = nn.Conv1d(filters, channels, 1)
        blocks = [SeparatorBlock(channels, hidden, channels, 2**n) for _ in range(repeats) for n in range(8)]
        self.blocks = nn.ModuleList(blocks)
        self.act, self.masks = nn.PReLU(), nn.Conv1d(channels, 2 * filters, 1)
        self.decoder = nn.ConvTranspose1d(filters, 1, 16, stride=8, padding=8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        y = self.bottleneck(self.norm(features))
        total: Any = 0.0
        for block in self.blocks:
            y, skip = block(y)
            total = total + skip
        masks = torch.sigmoid(self.masks(self.act(total)))
        first, second = masks.chunk(2, dim=1)
        return torch.cat((self.decoder(features * first), self.decoder(features * second)), dim=1)


class Chomp(nn.Module):
    """Cuts the end that padding on both sides made too long."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.count].contiguous()


class TemporalBlock(nn.Module):
    """Two dilated causal convolutions beside a shortcut."""

    def __init__(self, inputs: int, channels: int, taps: int, dilation: int) -> None:
        super().__init__()
        pad = (taps - 1) * dilation

        def half(channels_in: int) -> list[nn.Module]:
            layer = nn.Conv1d(channels_in, channels, taps, padding=pad, dilation=dilation)
            return [weight_norm(layer), Chomp(pad), nn.ReLU(), nn.Dropout(0.2)]

        self.net = nn.Sequential(*half(inputs), *half(channels))
        self.shortcut = nn.Conv1d(inputs, channels, 1) if inputs != channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.net(x) + self.shortcut(x))


class WaveNet(nn.Module):
    """Gated dilated convolutions, two stacks of ten."""

    def __init__(self, channels: int = 64, skip: int = 128, layers: int = 20) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, channels, 1)
        dilations = [2 ** (n % 10) for n in range(layers)]
        self.gates = nn.ModuleList([nn.Conv1d(channels, 2 * channels, 2, dilation=d) for d in dilations])
        self.skips = nn.ModuleList([nn.Conv1d(channels, skip, 1) for _ in dilations])
        self.onward = nn.ModuleList([nn.Conv1d(channels, channels, 1) for _ in dilations])
        self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, 256, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        total: Any = 0.0
        for gate, skip, onward in zip(self.gates, self.skips, self.onward, strict=True):
            padded = nn.functional.pad(x, (gate.dilation[0], 0))
            a, b = gate(padded).chunk(2, dim=1)
            y = torch.tanh(a) * torch.sigmoid(b)
            total = total + skip(y)
            x = x + onward(y)
        return self.end(total)


class SeparableBlock(nn.Module):
    """QuartzNet's: depthwise, 1x1, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, taps: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        pad = dilation * (taps - 1) // 2
        self.depthwise = nn.Conv1d(inputs, inputs, taps, stride, pad, dilation, groups=inputs, bias=False)
        self.pointwise = nn.Conv1d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.pointwise(self.depthwise(x))))


class ResidualBlock(nn.Module):
    """A block of a one-dimensional ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, 15, stride, 7, bias=False)
        self.norm1 = nn.BatchNorm1d(outputs)
        self.conv2 = nn.Conv1d(outputs, outputs, 15, 1, 7, bias=False)
        self.norm2 = nn.BatchNorm1d(outputs)
        is_same = inputs == outputs and stride == 1
        shortcut = nn.Sequential(nn.Conv1d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm1d(outputs))
        self.shortcut = nn.Identity() if is_same else shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Denoiser(nn.Module):
    """A causal U-net over the waveform, without its recurrence: strided convolutions, gates, transposed ones."""

    def __init__(self, hidden: int = 48, depth: int = 4, taps: int = 8, stride: int = 4) -> None:
        super().__init__()
        self.pad = taps - stride
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level in range(depth):
            inner, outer = hidden * 2**level, hidden * 2 ** (level - 1) if level else 1
            self.down.append(
                nn.Sequential(
                    nn.Conv1d(outer, inner, taps, stride), nn.ReLU(), nn.Conv1d(inner, 2 * inner, 1), nn.GLU(1)
                )
            )
            last: list[nn.Module] = [nn.ReLU()] if level else []
            self.up.insert(
                0,
                nn.Sequential(
                    nn.Conv1d(inner, 2 * inner, 1), nn.GLU(1), nn.ConvTranspose1d(inner, outer, taps, stride), *last
                ),
            )

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for block in self.down:
            x = block(nn.functional.pad(x, (self.pad, 0)))
            kept.append(x)
        for block in self.up:
            x = block(x + kept.pop())[..., : -self.pad]
        return x


def conv_tasnet() -> tuple[nn.Module, Tensor]:
    """2 seconds at 16 kHz."""
    return ConvTasNet(), torch.randn(1, 1, 32_000)


def tcn() -> tuple[nn.Module, Tensor]:
    """8 blocks of 25 channels with weight_norm, of 784 steps and a batch of 8 as for sequential MNIST."""
    blocks = [TemporalBlock(1 if n == 0 else 25, 25, 7, 2**n) for n in range(8)]
    return nn.Sequential(*blocks), torch.randn(8, 1, 784)


def wavenet() -> tuple[nn.Module, Tensor]:
    """1 second at 16 kHz."""
    return WaveNet(), torch.randn(1, 1, 16_000)


def quartznet() -> tuple[nn.Module, Tensor]:
    """9 depthwise separable layers, of 10 seconds of frames."""
    widths = [(64, 256, 33, 2)] + [(256, 256, 33, 1)] * 3 + [(256, 512, 51, 1)] + [(512, 512, 63, 1)] * 3
    blocks = [SeparableBlock(i, o, k, s) for i, o, k, s in widths] + [SeparableBlock(512, 512, 87, 1, 2)]
    return nn.Sequential(*blocks), torch.randn(1, 64, 1000)


def ecg_resnet() -> tuple[nn.Module, Tensor]:
    """12 leads, 10 seconds at 500 Hz."""
    first = [nn.Conv1d(12, 64, 15, 2, 7, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.MaxPool1d(3, 2, 1)]
    blocks = [ResidualBlock(64, 64, 1), ResidualBlock(64, 128, 2), ResidualBlock(128, 256, 2)]
    return nn.Sequential(*first, *blocks), torch.randn(1, 12, 5000)


class Vocoder(nn.Module):
    """SpeechT5's HiFi-GAN, on (batch, frames, bins)."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

        self.vocoder = SpeechT5HifiGan(SpeechT5HifiGanConfig())

    def forward(self, x: Tensor) -> Tensor:
        return self.vocoder(x)


def hifigan() -> tuple[nn.Module, Tensor]:
    """SpeechT5's vocoder: 100 frames to 25,600 samples."""
    return Vocoder(), torch.randn(1, 100, 80)


def encodec_encoder() -> tuple[nn.Module, Tensor]:
    """1 second at 24 kHz."""
    from transformers import EncodecConfig, EncodecModel

    return EncodecModel(EncodecConfig()).encoder, torch.randn(1, 1, 24_000)


def encodec_decoder() -> tuple[nn.Module, Tensor]:
    """75 frames, 1 second."""
    from transformers import EncodecConfig, EncodecModel

    return EncodecModel(EncodecConfig()).decoder, torch.randn(1, 128, 75)


def wav2vec2_features() -> tuple[nn.Module, Tensor]:
    """wav2vec2's convolutions, of 2 seconds at 16 kHz."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(feat_extract_norm="layer", conv_bias=True)
    return Wav2Vec2Model(config).feature_extractor, torch.randn(1, 32_000)


def dac_decoder() -> tuple[nn.Module, Tensor]:
    """50 frames to a second at 16 kHz."""
    from transformers import DacConfig, DacModel

    config = DacConfig(sampling_rate=16_000, decoder_hidden_size=768)
    return DacModel(config).decoder, torch.randn(1, config.hidden_size, 30)


def denoiser() -> tuple[nn.Module, Tensor]:
    """2 seconds at 16 kHz."""
    return Denoiser(), torch.randn(1, 1, 32_000)


def mimi_encoder() -> tuple[nn.Module, Tensor]:
    """1 second at 24 kHz."""
    from transformers import MimiConfig, MimiModel

    return MimiModel(MimiConfig(num_hidden_layers=1)).encoder.encoder_seanet, torch.randn(1, 1, 24_000)


def mimi_decoder() -> tuple[nn.Module, Tensor]:
    """25 frames to a second at 24 kHz."""
    from transformers import MimiConfig, MimiModel

    config = MimiConfig(num_hidden_layers=1)
    return MimiModel(config).decoder.decoder_seanet, torch.randn(1, config.hidden_size, 25)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "Conv-TasNet": conv_tasnet,
    "TCN": tcn,
    "WaveNet": wavenet,
    "QuartzNet": quartznet,
    "ECG ResNet1d": ecg_resnet,
    "HiFi-GAN": hifigan,
    "EnCodec encoder": encodec_encoder,
    "EnCodec decoder": encodec_decoder,
    "wav2vec2 features": wav2vec2_features,
    "DAC decoder": dac_decoder,
    "denoiser": denoiser,
    "Mimi encoder": mimi_encoder,
    "Mimi decoder": mimi_decoder,
}


class Chunks(NamedTuple):
    """How a network is fed live.

    Arguments:
        samples: of a chunk, of the network's own signal.
        seconds: that a chunk lasts.
    """

    samples: int
    seconds: float


# Chunks of about 10 ms, in full steps of the network.
LIVE = {
    "TCN": Chunks(160, 0.01),
    "WaveNet": Chunks(160, 0.01),
    "HiFi-GAN": Chunks(1, 0.016),
    "EnCodec encoder": Chunks(320, 320 / 24_000),
    "EnCodec decoder": Chunks(1, 320 / 24_000),
    "denoiser": Chunks(256, 0.016),
    "Mimi encoder": Chunks(960, 0.04),
    "Mimi decoder": Chunks(1, 0.04),
}


# Networks whose training steps are timed.
TRAINED = ["TCN", "Conv-TasNet", "QuartzNet", "WaveNet", "ECG ResNet1d"]


def make(name: str) -> tuple[nn.Module, Tensor]:
    """A network in evaluation, and a signal for it, always the same."""
    torch.manual_seed(0)
    model, signal = NETWORKS[name]()
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):  # as after training
            module.running_mean.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
    return model.eval(), signal
