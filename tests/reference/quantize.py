"""Fake quantization of a weight tensor, and its gradient in two ways (arXiv 2307.16867).

`levels` are ascending float64; they and their thresholds are rounded to float32, as a model holds them.
"""

EPSILON = 1e-5


def fake_quantize(weight, levels):
    """Return Q(z) * s + m with the straight-through gradient, written with detach."""
    m = weight.mean()
    s = weight.std()
    z = (weight - m) / (s + EPSILON)
    q = z + (nearest(z.detach(), levels) - z).detach()
    return q * s + m


def fake_quantize_span(weight, levels):
    """Quantize on the interval from the least to the greatest weight; levels are in [0, 1]."""
    least, greatest = weight.min(), weight.max()
    z = (weight - least) / (greatest - least + EPSILON)
    q = z + (nearest(z.detach(), levels) - z).detach()
    return q * (greatest - least) + least


def nearest(z, levels):
    """Return the level of the cell of each z by comparing every z with every threshold."""
    thresholds = ((levels[1:] + levels[:-1]) / 2).float()
    above = z.unsqueeze(-1) > thresholds
    return levels.float()[above.sum(-1)].to(z.dtype)


def closed_form_gradient(weight, upstream, levels):
    """Return dL/dw from upstream = dL/dw_q in float64; the cells are those of float32.

    rho * g_i + (1 - rho) * mean(g) + (w_i - m) / ((N - 1) s) * sum_j g_j (q_j - rho * z_j)
    with rho = s / (s + eps).
    """
    m32, s32 = weight.mean(), weight.std()
    q = nearest((weight - m32) / (s32 + EPSILON), levels).double()
    w, g = weight.double(), upstream.double()
    m, s = w.mean(), w.std()
    rho = s / (s + EPSILON)
    pull = (g * (q - rho * (w - m) / (s + EPSILON))).sum()
    return rho * g + (1 - rho) * g.mean() + (w - m) / ((w.numel() - 1) * s) * pull
