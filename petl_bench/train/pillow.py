"""Pillow's operations on batches of 8-bit images, on any device, with exactly the pixels of Pillow.

Each function states which of Pillow's it stands for. Arithmetic is done in the types and in the order in
which Pillow's C code does it, product by product and sum by sum, so that every device that keeps to IEEE 754
has the same results. Images are (n, 3, H, W), uint8; numbers, one row for each image, are float64.

Source: Pillow 12, src/libImaging: Resample.c, Geometry.c, Blend.c, Filter.c and Point.c; ImageOps.py and
ImageEnhance.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PRECISION = 22
"""Fractional bits of the weights with which Pillow resizes."""
HALF = 11
"""Bits of the lower of two parts of such a weight."""
A = -0.5
"""Parameter of the cubic filter."""


def resized(crops: Tensor, sizes: Tensor, size: int) -> Tensor:
    """Resize crops to squares: Image.resize with BICUBIC, the columns first as before Pillow 13.

    Args:
        crops: (n, H, W, 3), uint8; the pixels beyond a crop's own size are ignored.
        sizes: height and width of each crop (n, 2), int64.
        size: height and width of the results.

    Returns:
        (n, 3, size, size), uint8.
    """
    count, height, width, channels = crops.shape
    images = crops.permute(0, 3, 1, 2).reshape(count, channels * height, width)
    images = _weighted(images, _weights(sizes[:, 1], size, width))  # (n, 3 H, size)
    images = (
        images.view(count, channels, height, size).transpose(2, 3).reshape(count, channels * size, height)
    )
    images = _weighted(images, _weights(sizes[:, 0], size, height))
    return images.view(count, channels, size, size).transpose(2, 3).contiguous()


def _weighted(rows: Tensor, weights: Tensor) -> Tensor:
    """Return the rounded products of rows (n, rows, old) and weights (n, new, old), uint8 (n, rows, new).

    The weights are multiplied in two parts whose sums stay below 2^24, so that float32 holds them exactly.
    """
    values, high = rows.float(), torch.round(weights / 2**HALF)
    low = weights - high * 2**HALF
    sums = [values @ part.float().transpose(1, 2) for part in (high, low)]
    total = sums[0].to(torch.int32) * 2**HALF + sums[1].to(torch.int32) + 2 ** (PRECISION - 1)
    return (total >> PRECISION).clamp_(0, 255).to(torch.uint8)


def _weights(old: Tensor, new: int, longest: int) -> Tensor:
    """Return the fixed-point weights (n, new, longest) of the positions of rows of lengths `old` (n,)."""
    step = old.double() / new
    widened = step.clamp_min(1.0)
    target = torch.arange(new, dtype=torch.float64, device=old.device) + 0.5
    source = torch.arange(longest, dtype=torch.float64, device=old.device)
    centre, reach = (target * step[:, None])[..., None], (2 * widened)[:, None, None]
    first, last = torch.trunc(centre - reach + 0.5), torch.trunc(centre + reach + 0.5)
    used = (source >= first) & (source < torch.minimum(last, old[:, None, None]))
    values = torch.where(used, _cubic((source - centre + 0.5) * (1 / widened)[:, None, None]), 0.0)
    sums = values.sum(2, keepdim=True)
    scaled = values / torch.where(sums == 0, 1.0, sums) * (1 << PRECISION)  # an empty crop is black
    return torch.trunc(scaled + torch.where(scaled < 0, -0.5, 0.5))


def _cubic(x: Tensor) -> Tensor:
    """Return the values of Keys' cubic filter."""
    x = x.abs()
    near = ((A + 2) * x - (A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * A
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def table(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each value by an entry of a table: Image.point.

    Args:
        images: (n, 3, H, W).
        tables: (n, 256), or one for each channel (n, 3, 256).
    """
    if tables.dim() == 2:
        tables = tables[:, None].expand(-1, images.shape[1], -1)
    return tables.to(torch.uint8).gather(2, images.flatten(2).long()).view(images.shape)


def autocontrast(images: Tensor, numbers: Tensor) -> Tensor:
    """Stretch the values of each channel to 0 to 255: ImageOps.autocontrast."""
    flat = images.flatten(2)
    lowest, highest = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()
    scale = torch.full_like(lowest, 255.0) / (highest - lowest)  # a float / a tensor rounds twice
    values = torch.arange(256, dtype=torch.float64, device=images.device)
    tables = torch.trunc(values * scale + -lowest * scale).clamp(0, 255)
    return table(images, torch.where(highest > lowest, tables, values))


def equalize(images: Tensor, numbers: Tensor) -> Tensor:
    """Make the values of each channel equally frequent: ImageOps.equalize."""
    flat = images.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    most = counts.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - most).div(255, rounding_mode="floor")
    values = torch.arange(256, device=images.device)
    before = counts.cumsum(2) - counts + step.div(2, rounding_mode="floor")
    tables = before.div(step.clamp_min(1), rounding_mode="floor").clamp(0, 255)
    return table(images, torch.where(step > 0, tables, values))


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Change the distance of all values from the mean grey: ImageEnhance.Contrast."""
    grey = _grey(images)
    mean = torch.trunc(grey.flatten(1).sum(1).double() / grey[0].numel() + 0.5)
    return _blend(mean[:, None, None, None].expand(images.shape), images, factor)


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Change the distance of all colors from grey: ImageEnhance.Color."""
    return _blend(_grey(images).expand(images.shape), images, factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Change the distance of an image from its smoothed version: ImageEnhance.Sharpness."""
    values, smooth = images.float(), images.clone()
    one, five = (torch.tensor(n, dtype=torch.float32).div(13).item() for n in (1.0, 5.0))
    height, width = images.shape[2:]
    sums = torch.full_like(values[:, :, 2:, 2:], 0.5)
    for row in (2, 1, 0):
        left, middle, right = (values[:, :, row : row + height - 2, x : x + width - 2] for x in (0, 1, 2))
        sums = sums + (left * one + middle * (five if row == 1 else one) + right * one)
    smooth[:, :, 1:-1, 1:-1] = sums.clamp(0, 255).to(torch.uint8)
    return _blend(smooth, images, factor)


def _grey(images: Tensor) -> Tensor:
    """Return the luma (n, 1, H, W) of images, as int32: Image.convert("L")."""
    red, green, blue = images.to(torch.int32).split(1, 1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _blend(one: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """Return values on the line from one image to another, in uint8: Image.blend.

    Args:
        one, other: (n, 3, H, W), of any types.
        factor: (n, 1), 0 for `one` and 1 for `other`.
    """
    begin = one.float()
    change = factor.float()[:, :, None, None] * (other.float() - begin)
    return (begin + change).clamp_(0, 255).to(torch.uint8)


def affine(images: Tensor, numbers: Tensor) -> Tensor:
    """Move pixels by affine maps: Image.transform with AFFINE and BICUBIC.

    Args:
        images: (n, 3, H, W).
        numbers: coefficients (a, b, c, d, e, f) of each image, and the color of what comes from outside
            (n, 9): a result at (x, y) is the image at (a x + b y + c, d x + e y + f).
    """
    count, channels, height, width = images.shape
    a, b, c, d, e, f = numbers[:, :6].t()[:, :, None, None]
    x = torch.arange(width, dtype=torch.float64, device=images.device) + 0.5
    y = (torch.arange(height, dtype=torch.float64, device=images.device) + 0.5)[:, None]
    x, y = a * x + b * y + c, d * x + e * y + f
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x - 0.5, y - 0.5
    column, row = x.floor(), y.floor()
    x, y = (x - column)[:, None], (y - row)[:, None]
    columns = [(column + i).clamp(0, width - 1).long() for i in (-1, 0, 1, 2)]
    rows = [(row + i).clamp(0, height - 1).long() * width for i in (-1, 0, 1, 2)]
    flat = images.flatten(2)

    def at(place: Tensor) -> Tensor:
        wanted = place.flatten(1)[:, None].expand(-1, channels, -1)
        return flat.gather(2, wanted).view(count, channels, height, width).double()

    lines = [_interpolated([at(line + place) for place in columns], x) for line in rows]
    found = _interpolated(lines, y).clamp_(0, 255).to(torch.uint8)
    fill = numbers[:, 6:, None, None].to(torch.uint8).expand(images.shape)
    return torch.where(inside[:, None], found, fill)


def _interpolated(values: list[Tensor], place: Tensor) -> Tensor:
    """Return the cubic through four values at a place from 0 (the second) to 1 (the third)."""
    one, two, three, four = values
    first, second, third = -one + three, 2 * (one - two) + three - four, -one + two - three + four
    return two + place * (first + place * (second + place * third))


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "table": table,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "contrast": contrast,
    "color": color,
    "sharpness": sharpness,
    "affine": affine,
}
"""Operations by name: images (n, 3, H, W) and the numbers of each (n, k) -> images of the same shape."""
