"""Networks that tests stream: transformers' with random weights, and well-known ones in a few lines.

Each factory gives (model, example); models are small, but of the layers and settings of the real ones.
"""

import torch
from torch import nn
from torch.nn import functional as F


def _seeded(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) / 4)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model.double().eval()


def mimi_encoder():
    from transformers import MimiConfig
    from transformers.models.mimi.modeling_mimi import MimiEncoder

    config = MimiConfig(num_filters=4, hidden_size=16)
    return _seeded(MimiEncoder(config)), torch.zeros(1, 1, 4200, dtype=torch.float64)


def mimi_decoder():
    from transformers import MimiConfig
    from transformers.models.mimi.modeling_mimi import MimiDecoder

    config = MimiConfig(num_filters=4, hidden_size=16)
    return _seeded(MimiDecoder(config)), torch.zeros(1, 16, 12, dtype=torch.float64)


def encodec_encoder():
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecEncoder

    config = EncodecConfig(num_filters=4, hidden_size=16)
    return _seeded(EncodecEncoder(config)), torch.zeros(1, 1, 2000, dtype=torch.float64)


def encodec_decoder():
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecDecoder

    config = EncodecConfig(num_filters=4, hidden_size=16)
    return _seeded(EncodecDecoder(config)), torch.zeros(1, 16, 20, dtype=torch.float64)


def encodec_48khz_encoder():
    """Not causal, padded on both sides, normalised over time: to be refused."""
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecEncoder

    config = EncodecConfig(
        num_filters=4, hidden_size=16, use_causal_conv=False, norm_type="time_group_norm", audio_channels=2
    )
    return _seeded(EncodecEncoder(config)), torch.zeros(1, 2, 2000, dtype=torch.float64)


def dac_encoder():
    from transformers import DacConfig
    from transformers.models.dac.modeling_dac import DacEncoder

    config = DacConfig(encoder_hidden_size=4, hidden_size=16)
    return _seeded(DacEncoder(config)), torch.zeros(1, 1, 6000, dtype=torch.float64)


def dac_decoder():
    from transformers import DacConfig
    from transformers.models.dac.modeling_dac import DacDecoder

    config = DacConfig(decoder_hidden_size=48, hidden_size=16)
    return _seeded(DacDecoder(config)), torch.zeros(1, 16, 24, dtype=torch.float64)


def hifigan():
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    config = SpeechT5HifiGanConfig(model_in_dim=10, upsample_initial_channel=32)
    model = SpeechT5HifiGan(config)
    model.apply_weight_norm()
    return _seeded(model), torch.zeros(1, 24, 10, dtype=torch.float64)


def vits_decoder():
    from transformers import VitsConfig
    from transformers.models.vits.modeling_vits import VitsHifiGan

    config = VitsConfig(flow_size=8, upsample_initial_channel=32)
    return _seeded(VitsHifiGan(config)), torch.zeros(1, 8, 20, dtype=torch.float64)


def wav2vec2_features(norm="group"):
    from transformers import Wav2Vec2Config
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder

    config = Wav2Vec2Config(feat_extract_norm=norm, conv_dim=(8,) * 7)
    return _seeded(Wav2Vec2FeatureEncoder(config)), torch.zeros(1, 1200, dtype=torch.float64)


def wav2vec2_layer_normed():
    return wav2vec2_features("layer")


class Chomp(nn.Module):
    """Cuts what padding on both sides leaves too much on the right."""

    def __init__(self, n_cut):
        super().__init__()
        self.n_cut = n_cut

    def forward(self, x):
        return x[:, :, : -self.n_cut].contiguous()


class TemporalBlock(nn.Module):
    def __init__(self, fan_in, fan_out, taps, dilation):
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        pad = (taps - 1) * dilation
        parts = []
        for channels in (fan_in, fan_out):
            conv = nn.Conv1d(channels, fan_out, taps, padding=pad, dilation=dilation)
            parts += [norm(conv), Chomp(pad), nn.ReLU(inplace=True), nn.Dropout(0.2)]
        self.net = nn.Sequential(*parts)
        self.downsample = nn.Conv1d(fan_in, fan_out, 1) if fan_in != fan_out else None

    def forward(self, x):
        other = x if self.downsample is None else self.downsample(x)
        return F.relu(self.net(x) + other)


def tcn():
    blocks = [TemporalBlock(n, m, 3, d) for n, m, d in ((3, 8, 1), (8, 8, 2), (8, 6, 4))]
    return _seeded(nn.Sequential(*blocks)), torch.zeros(1, 3, 80, dtype=torch.float64)


class WaveNet(nn.Module):
    """Gated dilated layers without padding, skips cut to the shortest and summed."""

    def __init__(self):
        super().__init__()
        self.front = nn.Conv1d(1, 6, 1)
        dilations = (1, 2, 4, 8) * 2
        self.gates = nn.ModuleList(nn.Conv1d(6, 12, 2, dilation=d) for d in dilations)
        self.skips = nn.ModuleList(nn.Conv1d(6, 5, 1) for _ in dilations)
        self.residuals = nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in dilations)
        self.back = nn.Sequential(nn.ReLU(), nn.Conv1d(5, 5, 1), nn.ReLU(), nn.Conv1d(5, 2, 1))

    def forward(self, x):
        x, skips = self.front(x), None
        for gate, skip, residual in zip(self.gates, self.skips, self.residuals, strict=True):
            left, right = gate(x).chunk(2, dim=1)
            z = torch.tanh(left) * torch.sigmoid(right)
            s = skip(z)
            skips = s if skips is None else skips[:, :, -s.shape[-1] :] + s
            x = residual(z) + x[:, :, -z.shape[-1] :]
        return self.back(skips)


def wavenet():
    return _seeded(WaveNet()), torch.zeros(1, 1, 100, dtype=torch.float64)


class ConvTasNet(nn.Module):
    """Encoder, causal separator with BatchNorm, masks, decoder."""

    def __init__(self, sources=2, basis=8, width=6):
        super().__init__()
        self.sources = sources
        self.encoder = nn.Conv1d(1, basis, 16, stride=8, bias=False)
        self.bottleneck = nn.Conv1d(basis, width, 1)
        blocks = []
        for dilation in (1, 2, 4):
            pad = nn.ConstantPad1d((2 * dilation, 0), 0.0)
            depthwise = nn.Conv1d(width, width, 3, dilation=dilation, groups=width)
            blocks.append(
                nn.Sequential(
                    nn.Conv1d(width, width, 1),
                    nn.PReLU(),
                    nn.BatchNorm1d(width),
                    pad,
                    depthwise,
                    nn.PReLU(),
                    nn.BatchNorm1d(width),
                    nn.Conv1d(width, width, 1),
                )
            )
        self.blocks = nn.ModuleList(blocks)
        self.mask = nn.Conv1d(width, sources * basis, 1)
        self.decoder = nn.ConvTranspose1d(basis, 1, 16, stride=8, bias=False)

    def forward(self, x):
        batch = x.shape[0]
        encoded = self.encoder(x)
        y = self.bottleneck(encoded)
        for block in self.blocks:
            y = y + block(y)
        mask = torch.sigmoid(self.mask(y)).view(batch, self.sources, -1, encoded.shape[-1])
        parts = (encoded.unsqueeze(1) * mask).view(batch * self.sources, -1, encoded.shape[-1])
        return self.decoder(parts).view(batch, self.sources, -1)


def conv_tasnet():
    return _seeded(ConvTasNet()), torch.zeros(1, 1, 200, dtype=torch.float64)


class UNet(nn.Module):
    """Down by strides, up by transposed convolutions, cut to the length of the skips beside them."""

    def __init__(self, width=4, levels=3):
        super().__init__()
        self.front = nn.Conv1d(3, width, 7, padding="same")
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for n in range(levels):
            wide = width * 2**n
            same = nn.Conv1d(wide, wide, 7, padding="same")
            down = nn.Conv1d(wide, 2 * wide, 7, stride=4, padding=3)
            self.downs.append(nn.ModuleList([same, nn.BatchNorm1d(wide), down]))
            up = nn.ConvTranspose1d(2 * wide, wide, 7, stride=4)
            self.ups.insert(0, nn.ModuleList([up, nn.Conv1d(2 * wide, wide, 7, padding="same")]))
        self.back = nn.Conv1d(width, 3, 1)

    def forward(self, x):
        x, skips = torch.relu(self.front(x)), []
        for same, norm, down in self.downs:
            x = torch.relu(norm(same(x)))
            skips.append(x)
            x = torch.relu(down(x))
        for up, same in self.ups:
            skip = skips.pop()
            x = up(x)[:, :, 1 : 1 + skip.shape[-1]]
            x = torch.relu(same(torch.cat([skip, x], dim=1)))
        return torch.softmax(self.back(x), dim=1)


def unet():
    return _seeded(UNet()), torch.zeros(1, 3, 300, dtype=torch.float64)


STREAMED = {
    factory.__name__: factory
    for factory in (
        mimi_encoder,
        mimi_decoder,
        encodec_encoder,
        encodec_decoder,
        dac_encoder,
        dac_decoder,
        hifigan,
        vits_decoder,
        wav2vec2_layer_normed,
        tcn,
        wavenet,
        conv_tasnet,
        unet,
    )
}


class Of(nn.Module):
    """A module of one function."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)
