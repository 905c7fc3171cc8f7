"""Models of the zoo as PyTorch modules, from a seed: the same seed gives the same weights in every process.

The convolutional networks are written out: torchvision has no wheel for every build of PyTorch. Only
processes that export a model or run PyTorch import this module.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

_IMAGE = (3, 224, 224)


class Residual(nn.Module):
    """`body` plus `shortcut`, and an activation."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return out


class SqueezeExcite(nn.Module):
    """Channels scaled by what a small network makes of their means (Hu et al., 2018)."""

    def __init__(self, channels: int, squeezed: int, activation: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            activation,
            nn.Conv2d(squeezed, channels, 1),
            gate,
        )

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = x * self.gate(x)
        return scaled


def make_torch_model(name: str, *, seed: int) -> nn.Module:
    """A model of this module in evaluation mode.

    Raises:
        KeyError: there is none of this name.
    """
    torch.manual_seed(seed)
    model = _MODELS[name][0]()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):  # or the input would hardly show in the output of a deep network
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):  # not the identity, or folding it wrongly would not show
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval().requires_grad_(False)


def input_shape(name: str, *, batch: int) -> tuple[int, ...]:
    """Of the model's one input, float32."""
    return (batch, *_MODELS[name][1])


def _conv(
    in_channels: int,
    channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: nn.Module | None = None,
) -> nn.Sequential:
    """Convolution that keeps the extent (over the stride), batch norm, and an activation if there is one."""
    conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), *([activation] if activation else []))


def _head(in_channels: int, *layers: nn.Module) -> nn.Sequential:
    last = layers or (nn.Linear(in_channels, 1000),)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *last)


def _resnet(blocks: tuple[int, ...], *, is_bottleneck: bool) -> nn.Module:
    """ResNet (He et al., 2015), its strides in the 3 x 3 convolutions."""
    layers: list[nn.Module] = [_conv(3, 64, 7, 2, activation=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    in_channels = 64
    for stage, count in enumerate(blocks):
        inner = 64 << stage
        out = inner * 4 if is_bottleneck else inner
        for index in range(count):
            stride = 2 if stage and index == 0 else 1
            if is_bottleneck:
                body = nn.Sequential(
                    _conv(in_channels, inner, 1, activation=nn.ReLU()),
                    _conv(inner, inner, 3, stride, activation=nn.ReLU()),
                    _conv(inner, out, 1),
                )
            else:
                first = _conv(in_channels, inner, 3, stride, activation=nn.ReLU())
                body = nn.Sequential(first, _conv(inner, inner, 3))
            is_same = stride == 1 and in_channels == out
            shortcut = nn.Identity() if is_same else _conv(in_channels, out, 1, stride)
            layers.append(Residual(body, shortcut, nn.ReLU()))
            in_channels = out
    return nn.Sequential(*layers, _head(in_channels))


def _inverted_residual(
    shape: tuple[int, int, int],
    kernel: int,
    stride: int,
    activation: Callable[[], nn.Module],
    squeeze: nn.Module | None = None,
) -> nn.Module:
    """Expand, convolve by channel, squeeze, project; `shape`: channels in, expanded, out."""
    in_channels, expanded, out = shape
    layers: list[nn.Module] = []
    if expanded != in_channels:
        layers.append(_conv(in_channels, expanded, 1, activation=activation()))
    layers.append(_conv(expanded, expanded, kernel, stride, groups=expanded, activation=activation()))
    if squeeze is not None:
        layers.append(squeeze)
    layers.append(_conv(expanded, out, 1))
    body = nn.Sequential(*layers)
    return Residual(body, nn.Identity(), nn.Identity()) if stride == 1 and in_channels == out else body


def _multiple_of_8(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _mobilenet_v2() -> nn.Module:
    """Sandler et al., 2018, width 1.0: expansion, channels, repeats, first stride."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
    layers: list[nn.Module] = [_conv(3, 32, 3, 2, activation=nn.ReLU6())]
    in_channels = 32
    for expansion, channels, repeats, stride in (*stages, (6, 320, 1, 1)):
        for index in range(repeats):
            shape = (in_channels, in_channels * expansion, channels)
            first = stride if index == 0 else 1
            layers.append(_inverted_residual(shape, 3, first, nn.ReLU6))
            in_channels = channels
    return nn.Sequential(*layers, _conv(320, 1280, 1, activation=nn.ReLU6()), _head(1280))


def _mobilenet_v3_large() -> nn.Module:
    """Howard et al., 2019, table 1: kernel, expanded, out, squeeze and excite, hard swish, stride."""
    table = (
        (3, 16, 16, False, False, 1),
        (3, 64, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2),
        (5, 120, 40, True, False, 1),
        (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 480, 112, True, True, 1),
        (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2),
        (5, 960, 160, True, True, 1),
        (5, 960, 160, True, True, 1),
    )
    layers: list[nn.Module] = [_conv(3, 16, 3, 2, activation=nn.Hardswish())]
    in_channels = 16
    for kernel, expanded, out, squeezes, is_swish, stride in table:
        shape = (in_channels, expanded, out)
        activation = nn.Hardswish if is_swish else nn.ReLU
        narrow = _multiple_of_8(expanded / 4)
        squeeze = SqueezeExcite(expanded, narrow, nn.ReLU(), nn.Hardsigmoid()) if squeezes else None
        layers.append(_inverted_residual(shape, kernel, stride, activation, squeeze))
        in_channels = out
    head = _head(960, nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, 1000))
    return nn.Sequential(*layers, _conv(160, 960, 1, activation=nn.Hardswish()), head)


def _efficientnet_b0() -> nn.Module:
    """Tan and Le, 2019, table 1: expansion, kernel, channels, repeats, first stride."""
    stages = (
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 5, 40, 2, 2),
        (6, 3, 80, 3, 2),
        (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    )
    layers: list[nn.Module] = [_conv(3, 32, 3, 2, activation=nn.SiLU())]
    in_channels = 32
    for expansion, kernel, channels, repeats, stride in stages:
        for index in range(repeats):
            shape = (in_channels, in_channels * expansion, channels)
            squeeze = SqueezeExcite(shape[1], in_channels // 4, nn.SiLU(), nn.Sigmoid())
            first = stride if index == 0 else 1
            layers.append(_inverted_residual(shape, kernel, first, nn.SiLU, squeeze))
            in_channels = channels
    return nn.Sequential(*layers, _conv(320, 1280, 1, activation=nn.SiLU()), _head(1280))


class UNet(nn.Module):
    """Ronneberger et al., 2015, padded and with batch norms: each level halves the image, and back."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_double(a, b) for a, b in itertools.pairwise((3, *channels)))
        upwards = list(itertools.pairwise(reversed(channels)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in upwards)
        self.join = nn.ModuleList(_double(a, b) for a, b in upwards)
        self.classify = nn.Conv2d(channels[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.down[0](x)]
        for down in self.down[1:]:
            levels.append(down(nn.functional.max_pool2d(levels[-1], 2)))
        out = levels.pop()
        for up, join in zip(self.up, self.join, strict=True):
            out = join(torch.cat([levels.pop(), up(out)], dim=1))
        classes: Tensor = self.classify(out)
        return classes


def _double(in_channels: int, channels: int) -> nn.Module:
    first = _conv(in_channels, channels, 3, activation=nn.ReLU())
    return nn.Sequential(first, _conv(channels, channels, 3, activation=nn.ReLU()))


class Transformer(nn.Module):
    """A transformer of the package transformers, which gives its last hidden state."""

    def __init__(self, model: nn.Module, input_name: str) -> None:
        super().__init__()
        self.model, self.input_name = model, input_name

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.model(**{self.input_name: x}).last_hidden_state
        return hidden


def _bert_base() -> nn.Module:
    from transformers import BertConfig, BertModel

    return Transformer(BertModel(BertConfig(), add_pooling_layer=False), "inputs_embeds")


def _vit_small() -> nn.Module:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536)
    return Transformer(ViTModel(config, add_pooling_layer=False), "pixel_values")


class Recurrent(nn.Module):
    """An LSTM over a sequence, batch first; gives the hidden state of every step."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.lstm(x)[0]
        return hidden


def _mlp() -> nn.Module:
    sizes = (784, 1024, 1024, 512)
    layers: list[nn.Module] = []
    for size, next_size in itertools.pairwise(sizes):
        layers += [nn.Linear(size, next_size), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


# Name -> how it is made, and the shape of one input without the batch.
_MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (lambda: _resnet((2, 2, 2, 2), is_bottleneck=False), _IMAGE),
    "resnet50": (lambda: _resnet((3, 4, 6, 3), is_bottleneck=True), _IMAGE),
    "mobilenet_v2": (_mobilenet_v2, _IMAGE),
    "mobilenet_v3_large": (_mobilenet_v3_large, _IMAGE),
    "efficientnet_b0": (_efficientnet_b0, _IMAGE),
    "unet": (lambda: UNet((32, 64, 128, 256), classes=4), (3, 256, 256)),
    "bert_base": (_bert_base, (128, 768)),
    "vit_small": (_vit_small, _IMAGE),
    "mlp": (_mlp, (784,)),
    "lstm": (lambda: Recurrent(128, 256), (64, 128)),
}
