"""Linear probing: only the head is trained."""

from tests.reference.plain import Plain

STATED = [(0, {}, 0, "the head is not counted")]


def counts(dim, depth, hidden, settings):
    return 0, 0


class Model(Plain):
    pass
