"""Ten networks after designs that people use, small and with random weights: each gives (model, example)."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from networks import _seeded


def _signal(*size):
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class PooledUNet(nn.Module):
    """Pooled four times, upsampled by transposed convolutions, joined with the skips: multiples of 16 alone."""

    def __init__(self, width=3):
        super().__init__()
        wide = [width * 2**n for n in range(5)]
        self.downs = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1) for a, b in zip([2, *wide], wide, strict=False))
        self.ups = nn.ModuleList(nn.ConvTranspose1d(b, a, 2, 2) for a, b in itertools.pairwise(wide))
        self.merges = nn.ModuleList(nn.Conv1d(2 * a, a, 3, padding=1) for a in wide[:-1])
        self.back = nn.Conv1d(width, 1, 1)

    def forward(self, x):
        skips = []
        for n, down in enumerate(self.downs):
            x = F.relu(down(x if n == 0 else F.max_pool1d(x, 2)))
            skips.append(x)
        for n in reversed(range(4)):
            x = F.relu(self.merges[n](torch.cat((skips[n], self.ups[n](x)), 1)))
        return self.back(x).sigmoid()


class MaskedTCN(nn.Module):
    """Stages of dilated residual layers whose outputs are masked, as for the segmentation of actions."""

    def __init__(self, width=6):
        super().__init__()
        self.front = nn.Conv1d(3, width, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(width, width, 3, padding=2**n, dilation=2**n) for n in range(4))
        self.mixed = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(4))
        self.back = nn.Conv1d(width, 5, 1)

    def forward(self, x, mask):
        y = self.front(x)
        for dilated, mixed in zip(self.dilated, self.mixed, strict=True):
            y = (y + mixed(F.relu(dilated(y)))) * mask[:, 0:1, :]
        return self.back(y) * mask[:, 0:1, :]


class Codec(nn.Module):
    """Encoder, residual vector quantisation, decoder: waveform in, waveform and codes out."""

    def __init__(self, width=8, codes=6, stages=2):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(1, width, 7, padding=3),
            nn.ELU(),
            nn.Conv1d(width, width, 8, 4, padding=2),
            nn.ELU(),
            nn.Conv1d(width, width, 3, padding=1),
        )
        self.tables = nn.ModuleList(nn.Embedding(codes, width) for _ in range(stages))
        self.decoder = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1),
            nn.ELU(),
            nn.ConvTranspose1d(width, width, 8, 4, padding=2),
            nn.ELU(),
            nn.Conv1d(width, 1, 7, padding=3),
        )

    def forward(self, x):
        y = self.encoder(x)
        rows = y.transpose(1, 2)
        flat = rows.reshape(-1, rows.shape[-1])
        rest, quantised, codes = flat, torch.zeros_like(flat), []
        for table in self.tables:
            distance = rest.pow(2).sum(1, keepdim=True) - 2 * rest @ table.weight.t() + table.weight.pow(2).sum(1)
            code = distance.argmin(1)
            nearest = table(code)
            rest, quantised = rest - nearest, quantised + nearest
            codes.append(code.view(rows.shape[0], -1))
        z = quantised.view(rows.shape[0], -1, rows.shape[-1]).transpose(1, 2)
        return self.decoder(z), torch.stack(codes, 1)


class LogMel(nn.Module):
    """Frames, a window, power spectra, mel bands, logarithm."""

    def __init__(self, size=32, hop=8, bands=6):
        super().__init__()
        self.size, self.hop = size, hop
        self.register_buffer("window", torch.hann_window(size))
        self.register_buffer("mel", torch.rand(size // 2 + 1, bands, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        frames = F.pad(x, (self.size // 2, self.size // 2)).unfold(-1, self.size, self.hop) * self.window
        power = torch.fft.rfft(frames, dim=-1).abs() ** 2
        return torch.log(torch.clamp(power @ self.mel, min=1e-5)).transpose(1, 2)


class SubPixel(nn.Module):
    """Upsampling by channels that become neighbours in time, beside linear interpolation."""

    def __init__(self, factor=3):
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv1d(1, 4 * factor, 9, padding=4)
        self.back = nn.Conv1d(4, 1, 5, padding=2)

    def forward(self, x):
        batch, _, length = x.shape
        y = F.leaky_relu(self.conv(x), 0.2)
        y = y.view(batch, self.factor, 4, length).permute(0, 2, 3, 1).reshape(batch, 4, length * self.factor)
        return self.back(y) + F.interpolate(x, scale_factor=self.factor, mode="linear", align_corners=False)


class Vocoder(nn.Module):
    """Noise through gated dilated layers that a mel spectrogram conditions, upsampled to its rate."""

    def __init__(self, hop=8, width=6):
        super().__init__()
        self.up = nn.ConvTranspose1d(5, 2 * width, hop, hop)
        self.front = nn.Conv1d(1, width, 1)
        self.gates = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, padding=2**n, dilation=2**n) for n in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(3))
        self.back = nn.Conv1d(width, 1, 1)

    def forward(self, mel, noise):
        condition, x, skips = self.up(mel), self.front(noise), 0
        for gate, skip in zip(self.gates, self.skips, strict=True):
            left, right = (gate(x) + condition).chunk(2, 1)
            y = torch.tanh(left) * torch.sigmoid(right)
            skips = skips + skip(y)
            x = (x + y) * 0.5**0.5
        return self.back(F.relu(skips))


class CumulativeNorm(nn.Module):
    """A causal separator's blocks, normalised over all moments so far."""

    def __init__(self, width=5):
        super().__init__()
        self.front = nn.Conv1d(1, width, 8, 4)
        self.depthwise = nn.Conv1d(width, width, 3, dilation=2, groups=width)
        self.gain, self.shift = nn.Parameter(torch.ones(1, width, 1)), nn.Parameter(torch.zeros(1, width, 1))
        self.back = nn.ConvTranspose1d(width, 1, 8, 4)

    def norm(self, x):
        channels, length = x.shape[1:]
        count = torch.arange(channels, channels * (length + 1), channels, dtype=x.dtype, device=x.device)
        mean = torch.cumsum(x.sum(1), 1) / count
        power = torch.cumsum(x.pow(2).sum(1), 1) / count
        mean, deviation = mean.unsqueeze(1), (power - mean.pow(2) + 1e-8).sqrt().unsqueeze(1)
        return self.gain * (x - mean.expand_as(x)) / deviation.expand_as(x) + self.shift

    def forward(self, x):
        y = self.norm(self.front(x))
        return self.back(y * torch.sigmoid(self.depthwise(F.pad(y, (4, 0)))))


class ConvLSTM(nn.Module):
    """Centred convolutions, an LSTM over their frames, and a classifier of each frame."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(2, 6, 5, padding=2), nn.ReLU(), nn.Conv1d(6, 6, 4, 2, padding=1), nn.ReLU())
        self.lstm, self.head = nn.LSTM(6, 7, 2, batch_first=True), nn.Linear(7, 3)

    def forward(self, x):
        return self.head(self.lstm(self.conv(x).transpose(1, 2))[0]).log_softmax(-1)


class SpectrogramMask(nn.Module):
    """Two-dimensional convolutions over frequency and time give a mask for a spectrogram."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 4, (5, 3), (2, 1), padding=(2, 1))
        self.norm = nn.BatchNorm2d(4)
        self.middle = nn.Conv2d(4, 4, 3, padding=(1, 2), dilation=(1, 2))
        self.up = nn.ConvTranspose2d(4, 1, (4, 3), (2, 1), padding=(1, 1))

    def forward(self, magnitude):
        y = F.elu(self.norm(self.down(magnitude.unsqueeze(1))))
        return magnitude * self.up(y + F.elu(self.middle(y))).squeeze(1).sigmoid()


class FilterBank(nn.Module):
    """Two bands by filters at half the rate, each processed, and put together by their phases."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Conv1d(1, 1, 8, 2, padding=3), nn.Conv1d(1, 1, 16, 2, padding=7)
        self.inner = nn.Conv1d(2, 2, 5, padding=2, groups=2)

    def forward(self, x):
        low, high = self.inner(torch.cat((self.low(x), self.high(x)), 1)).chunk(2, 1)
        return torch.stack((low + high, low - high), -1).flatten(-2)


def pooled_unet():
    return _seeded(PooledUNet()), _signal(2, 2, 96)


def masked_tcn():
    return _seeded(MaskedTCN()), (_signal(2, 3, 70), (_signal(2, 1, 70) > -1).double())


def codec():
    return _seeded(Codec()), _signal(2, 1, 128)


def log_mel():
    return LogMel().double(), _signal(2, 200)


def sub_pixel():
    return _seeded(SubPixel()), _signal(2, 1, 60)


def vocoder():
    return _seeded(Vocoder()), (_signal(2, 5, 12), _signal(2, 1, 96))


def cumulative_norm():
    return _seeded(CumulativeNorm()), _signal(2, 1, 120)


def conv_lstm():
    return _seeded(ConvLSTM()), _signal(2, 2, 64)


def spectrogram_mask():
    return _seeded(SpectrogramMask()), _signal(2, 12, 50).abs()


def filter_bank():
    return _seeded(FilterBank()), _signal(2, 1, 80)


NETWORKS = {
    factory.__name__: factory
    for factory in (
        pooled_unet,
        masked_tcn,
        codec,
        log_mel,
        sub_pixel,
        vocoder,
        cumulative_norm,
        conv_lstm,
        spectrogram_mask,
        filter_bank,
    )
}
