"""A vision transformer from a timm state dict in plain operations, every step of which a method may override.

Each adapter method has a module of its name in tests/reference/methods with

    class Model(Plain)                     the method, from its formulas alone, dropout 0
    counts(dim, depth, hidden, settings)   its numbers of matrix weights and of floats, by its closed form
    STATED                                 what its source says of ViT-B/16: a list of (hidden, settings,
                                           trained numbers, where it says so); (least, most) where it rounds

and nothing of petl_bench.
"""

import math

import torch


class Plain:
    """images (batch, 3, side, side) -> logits (batch, classes).

    Attributes:
        state: the frozen tensors, under timm's names.
        tensors: those of the adapter, codes included, by the names in its file; a list of floats is a list
            of tensors.
        heads: of the attention.
        settings: the adapter's own settings.
        scale, hidden: as petl_bench.adapters.Shape has them.
        head: weight (classes, dim) and bias (classes) of the classifier.
    """

    def __init__(self, state, tensors, heads, settings, scale, hidden, head):
        self.state, self.tensors, self.heads = state, tensors, heads
        self.settings, self.scale, self.hidden = settings, scale, hidden
        self.head = head
        self.dim = state["cls_token"].shape[-1]
        self.depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})

    def logits(self, images):
        weight, bias = self.head
        return self.features(images) @ weight.T + bias

    def features(self, images):
        x = self.embedded(images)
        for i in range(self.depth):
            x = self.block(i, x)
        return self.norm("norm", x)[:, 0]

    def embedded(self, images):
        """The class token and the patches, with their positions: (batch, 1 + patches, dim)."""
        tokens = self.patches(images)
        first = self.state["cls_token"].expand(len(images), 1, self.dim)
        return torch.cat([first, tokens], 1) + self.state["pos_embed"]

    def patches(self, images):
        """(batch, patches, dim)."""
        weight = self.state["patch_embed.proj.weight"]
        patch = weight.shape[-1]
        tiles = images.unfold(2, patch, patch).unfold(3, patch, patch)
        tiles = tiles.permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)
        return tiles @ weight.reshape(self.dim, -1).T + self.state["patch_embed.proj.bias"]

    def block(self, i, x):
        x = x + self.attention_branch(i, x)
        return x + self.mlp_branch(i, x)

    def attention_branch(self, i, x):
        """What block i adds to the stream first."""
        return self.attention(i, self.norm(f"blocks.{i}.norm1", x))

    def attention(self, i, z):
        """Of the normalized stream."""
        qkv = self.linear(f"blocks.{i}.attn.qkv", z)
        outputs = []
        for q, k, v in zip(*(part.chunk(self.heads, -1) for part in qkv.chunk(3, -1)), strict=True):
            scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
            outputs.append(torch.softmax(scores, -1) @ v)
        return self.linear(f"blocks.{i}.attn.proj", torch.cat(outputs, -1))

    def mlp_branch(self, i, x):
        """What block i adds to the stream second."""
        return self.mlp(i, self.norm(f"blocks.{i}.norm2", x))

    def mlp(self, i, z):
        hidden = gelu(self.linear(f"blocks.{i}.mlp.fc1", z))
        return self.linear(f"blocks.{i}.mlp.fc2", hidden)

    def linear(self, name, x):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, name, x):
        return normalized(x) * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def normalized(x, epsilon=1e-6):
    centered = x - x.mean(-1, keepdim=True)
    return centered / torch.sqrt((centered**2).mean(-1, keepdim=True) + epsilon)
