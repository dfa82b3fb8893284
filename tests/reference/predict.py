"""Code length of a matrix under the context model of adapter files, in plain Python (docs/file-format.md).

The sign of each unit is predicted by online logistic regression on the signs of the earlier units at its
position and on its initial value. The bits below the sign are predicted by adaptive probabilities for each
unit and bit plane, and for each node of the tree of bits.
"""

import math
from decimal import Decimal, getcontext

ONE = 65536


def logistic(logit):
    """Return the probability of a 1 in units of 2**-16, at the middle of the logit's step of 1/256."""
    step = min(max((logit + 8 * ONE) // 256, 0), 4095) - 2048
    getcontext().prec = 40
    exact = ONE / (1 + (-(Decimal(step) + Decimal("0.5")) / 256).exp())
    return min(max(int(exact.to_integral_value()), 32), ONE - 32)


def code_length(codes, bits, rate, initial):
    """Return the bits that the model needs, and its probability of a positive sign at each position and unit.

    Args:
        codes: lists over units, one for each position.
        initial: initial values in the same arrangement, from -2**15 to 2**15, or zeros.
    """
    units, half = len(codes[0]), 2 ** (bits - 1)
    bias = [0] * units
    weight = [[0] * units for _ in range(units)]
    pull = ONE
    node_values = [0] * half
    plane_bias = [[0] * units for _ in range(bits)]
    total, chances_of = 0.0, []
    for position, row in enumerate(codes):
        step = rate * math.isqrt(2**23 // (8 + position)) // 256
        signs = [1 if code >= half else -1 for code in row]
        distances = [code - half if code >= half else half - 1 - code for code in row]
        errors = []
        chances_of.append([])
        for unit, sign in enumerate(signs):
            logit = bias[unit] + pull * initial[position][unit] // 2**15
            logit += sum(weight[unit][other] * signs[other] for other in range(unit))
            chance = logistic(logit)
            chances_of[-1].append(chance / ONE)
            total -= math.log2((chance if sign > 0 else ONE - chance) / ONE)
            errors.append((ONE if sign > 0 else 0) - chance)
        for unit, error in enumerate(errors):
            change = step * error // ONE
            bias[unit] += change
            for other in range(unit):
                weight[unit][other] += change * signs[other]
        gradient = sum(error * value // 2**15 for error, value in zip(errors, initial[position], strict=True))
        pull += 4096 * gradient // ONE
        nodes = [1] * units
        for plane in range(bits - 1):
            now = [distance >> (bits - 2 - plane) & 1 for distance in distances]
            chances = [
                logistic(plane_bias[plane][unit] + node_values[node]) for unit, node in enumerate(nodes)
            ]
            for unit, (bit, chance) in enumerate(zip(now, chances, strict=True)):
                total -= math.log2((chance if bit else ONE - chance) / ONE)
                plane_bias[plane][unit] += step * (bit * ONE - chance) // ONE
                node_values[nodes[unit]] += 2048 * (bit * ONE - chance) // ONE
            nodes = [2 * node + bit for node, bit in zip(nodes, now, strict=True)]
    return total, chances_of
