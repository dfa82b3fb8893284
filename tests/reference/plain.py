"""A vision transformer from a timm state dict in plain operations; a method may override every step.

Each adapter method has a module of its name in tests/reference/methods, which imports nothing of petl_bench:

    class Model(Plain)                     the method from its formulas alone, with dropout 0
    counts(dim, depth, hidden, settings)   its numbers of matrix weights and of other numbers, in closed form
    STATED                                 sizes on ViT-B/16 (12 blocks of 768 dimensions): a list of (hidden,
                                           settings, trainable parameters, how to arrive at them by hand);
                                           (least, most) where only a range is known
    IDENTITY                               False if the initial model differs from the frozen one
    OPTIONS                                settings beside the defaults for which Model is written, too
"""

import math

import torch


class Plain:
    """Compute logits (batch, classes) of images (batch, 3, side, side).

    Attributes:
        state: the frozen tensors, under timm's names.
        tensors: the tensors of the adapter, codes included, by their names in the adapter file; parameters
            that are not quantized are lists of tensors.
        heads: number of attention heads.
        settings: the settings of the adapter.
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
        """Return the class token and the patches with their positions, (batch, 1 + patches, dim)."""
        tokens = self.patches(images)
        first = self.state["cls_token"].expand(len(images), 1, self.dim)
        return torch.cat([first, tokens], 1) + self.state["pos_embed"]

    def patches(self, images):
        """Return the embedded patches, (batch, patches, dim)."""
        weight = self.state["patch_embed.proj.weight"]
        patch = weight.shape[-1]
        tiles = images.unfold(2, patch, patch).unfold(3, patch, patch)
        tiles = tiles.permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)
        return tiles @ weight.reshape(self.dim, -1).T + self.state["patch_embed.proj.bias"]

    def block(self, i, x):
        x = x + self.attention_branch(i, x)
        return x + self.mlp_branch(i, x)

    def attention_branch(self, i, x):
        """Return what block i adds to the residual stream first."""
        return self.attention(i, self.norm(f"blocks.{i}.norm1", x))

    def attention(self, i, z):
        """Return the attention output for the normalized stream z."""
        qkv = self.linear(f"blocks.{i}.attn.qkv", z)
        outputs = []
        for q, k, v in zip(*(part.chunk(self.heads, -1) for part in qkv.chunk(3, -1)), strict=True):
            scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
            outputs.append(torch.softmax(scores, -1) @ v)
        return self.linear(f"blocks.{i}.attn.proj", torch.cat(outputs, -1))

    def mlp_branch(self, i, x):
        """Return what block i adds to the residual stream second."""
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
