"""Forward pass of a vision transformer from a timm state dict, with AdaptFormer or LoRA.

`state` holds the frozen tensors under timm's names. `update(role, x)` returns what an adapter adds in block i
for the roles "i.mlp", "i.q" and "i.v"; None where it adds nothing.
"""

import math

import torch


def features(state, images, heads, update):
    """Return the class token after the final norm, (batch, dim), of images (batch, 3, side, side)."""
    weight = state["patch_embed.proj.weight"]
    dim, _, patch, _ = weight.shape
    # (batch, 3, rows, columns, patch, patch) -> (batch, rows * columns, 3 * patch * patch)
    tiles = images.unfold(2, patch, patch).unfold(3, patch, patch)
    tiles = tiles.permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)
    tokens = tiles @ weight.reshape(dim, -1).T + state["patch_embed.proj.bias"]
    first = state["cls_token"].expand(len(images), 1, dim)
    x = torch.cat([first, tokens], 1) + state["pos_embed"]
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    for i in range(depth):
        x = _block(state, i, x, heads, update)
    return _norm(state, "norm", x)[:, 0]


def _block(state, i, x, heads, update):
    x = x + _attention(state, i, _norm(state, f"blocks.{i}.norm1", x), heads, update)
    hidden = _linear(state, f"blocks.{i}.mlp.fc1", _norm(state, f"blocks.{i}.norm2", x))
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    y = x + _linear(state, f"blocks.{i}.mlp.fc2", gelu)
    extra = update(f"{i}.mlp", x)  # x is the residual stream after attention, not normalized
    return y if extra is None else y + extra


def _attention(state, i, x, heads, update):
    q, k, v = _linear(state, f"blocks.{i}.attn.qkv", x).split(x.shape[-1], -1)
    extra_q, extra_v = update(f"{i}.q", x), update(f"{i}.v", x)
    q = q if extra_q is None else q + extra_q
    v = v if extra_v is None else v + extra_v
    outputs = []
    for q_h, k_h, v_h in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        scores = q_h @ k_h.transpose(1, 2) / math.sqrt(q_h.shape[-1])
        outputs.append(torch.softmax(scores, -1) @ v_h)
    return _linear(state, f"blocks.{i}.attn.proj", torch.cat(outputs, -1))


def _linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state, name, x):
    centered = x - x.mean(-1, keepdim=True)
    variance = (centered**2).mean(-1, keepdim=True)
    return centered / torch.sqrt(variance + 1e-6) * state[f"{name}.weight"] + state[f"{name}.bias"]
