"""The .bin files of the released checkpoints of arXiv 2307.16867, written and read in plain Python.

Source: repository JieShibo/PETL-ViT, folder binary_adapter. A file has no header and holds the tensors of an
adapted ViT-B/16 in module order. A matrix is its signs, one bit each in row-major order, the least
significant bit of a byte first, 1 for a positive sign; then its mean and its standard deviation, both
little-endian float32. The head comes last: a binary head is one such matrix, a float32 head is its weight
followed by its bias. At more bits a code is the number of the level nearest to a standardized weight.
"""

import math
import struct
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from scipy.special import ndtr, ndtri

DIM, BLOCKS = 768, 12  # ViT-B: Dosovitskiy et al. 2021, table 1
LEVEL = NormalDist().inv_cdf(0.75)  # the median of the absolute value of a standard normal variable
MATRICES = {"adaptformer": ["down", "up"], "lora": ["q.down", "q.up", "v.down", "v.up"]}


def shapes(method, hidden, classes):
    """Return name -> shape of every tensor in the order of the file; matrices at one bit have two dimensions.

    Args:
        method: adaptformer or lora, followed by "-bihead" where the head is binary.
    """
    adapter, _, binary = method.partition("-")
    sizes = {"down": (hidden, DIM), "up": (DIM, hidden)}
    found = {f"{i}.{name}": sizes[name.split(".")[-1]] for i in range(BLOCKS) for name in MATRICES[adapter]}
    found["weight"] = (classes, DIM)
    return found if binary else found | {"bias": (classes,)}


def in_one_bit(name, method):
    return name not in ("weight", "bias") or method.endswith("-bihead")


def write(tensors, method):
    """Return the bytes of a file.

    Args:
        tensors: name -> array of floats, or (array of booleans that are true for positive signs, mean,
            standard deviation), in the order of the file.
    """
    pieces = []
    for name, tensor in tensors.items():
        if not in_one_bit(name, method):
            pieces.append(np.asarray(tensor, "<f4").tobytes())
            continue
        signs, mean, std = tensor
        bits = [int(sign) for sign in signs.flatten()]
        for start in range(0, len(bits), 8):
            pieces.append(bytes([sum(bit << k for k, bit in enumerate(bits[start : start + 8]))]))
        pieces.append(struct.pack("<ff", mean, std))
    return b"".join(pieces)


def read(data, method, hidden, classes):
    """Return the tensors of a file as `write` takes them."""
    found, start = {}, 0
    for name, shape in shapes(method, hidden, classes).items():
        count = math.prod(shape)
        end = start + (count // 8 + 8 if in_one_bit(name, method) else 4 * count)
        piece, start = data[start:end], end
        if in_one_bit(name, method):
            signs = [byte >> bit & 1 == 1 for byte in piece[:-8] for bit in range(8)]
            found[name] = (np.array(signs).reshape(shape), *struct.unpack("<ff", piece[-8:]))
        else:
            found[name] = np.frombuffer(piece, "<f4").reshape(shape)
    assert start == len(data), (start, len(data))
    return found


def values(data, method, hidden, classes):
    """Return name -> float32 array of a file: the level of each sign, times std, plus mean."""
    found = {}
    for name, tensor in read(data, method, hidden, classes).items():
        if in_one_bit(name, method):
            signs, mean, std = tensor
            level = np.where(signs, np.float32(LEVEL), np.float32(-LEVEL))
            found[name] = level * np.float32(std) + np.float32(mean)
        else:
            found[name] = tensor
    return found


def codebook(bits):
    """Return the 2**bits levels, float32: 500 updates from zero, however far from their fixed point."""
    levels = np.zeros(2**bits)
    for _ in range(500):
        cdf = [0.0, *ndtr((levels[1:] + levels[:-1]) / 2), 1.0]
        levels = ndtri([(low + high) / 2 for low, high in pairwise(cdf)])
    return levels.astype(np.float32)


def stored(weight, bits):
    """Return the bytes of a matrix at 1, 2, 4 or 8 bits, and the weights that are loaded from them.

    Args:
        weight: (rows, columns), float32.
    """
    levels, mean, std = codebook(bits), np.float32(weight.mean()), np.float32(weight.std(ddof=1))
    z = ((weight - mean) / (std + np.float32(1e-5))).flatten()
    codes = [int(np.abs(levels - value).argmin()) for value in z]
    each = 8 // bits
    packed = [
        sum(code << bits * k for k, code in enumerate(codes[i : i + each]))
        for i in range(0, len(codes), each)
    ]
    loaded = levels[codes] * std + mean
    return bytes(packed) + struct.pack("<ff", mean, std), loaded.reshape(weight.shape)
