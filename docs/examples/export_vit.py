"""Export a small vision transformer from PyTorch to ONNX: `python export_vit.py vit.onnx [SEED]`.

Needs PyTorch (`pip install torch`), which Tunewright itself does not.
"""

import sys

import torch
from torch import nn


class Block(nn.Module):
    """A pre-norm transformer block: self-attention, then a two-layer perceptron with GELU."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, dim = x.shape
        heads = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (query @ key.transpose(-2, -1) * (dim // self.num_heads) ** -0.5).softmax(dim=-1)
        x = x + self.project((weights @ value).transpose(1, 2).reshape(batch, tokens, dim))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """ViT-Tiny's width (192, 3 heads) at half its depth: 197 tokens of a 224 x 224 image, 1000 classes."""

    def __init__(self, dim: int = 192, depth: int = 6, num_heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, kernel_size=16, stride=16)
        self.class_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 197, dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(dim, num_heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return self.head(self.norm(self.blocks(tokens + self.positions))[:, 0])


def main() -> None:
    torch.manual_seed(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    image = torch.zeros(1, 3, 224, 224)
    torch.onnx.export(
        VisionTransformer().eval(),
        (image,),
        sys.argv[1],
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
        dynamo=False,  # the exporter that needs no further package
    )


if __name__ == "__main__":
    main()
