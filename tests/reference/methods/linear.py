"""Linear probing: nothing beside the head."""

from tests.reference.plain import Plain

STATED = [(0, {}, 0, "the head is never counted")]


def counts(dim, depth, hidden, settings):
    return 0, 0


class Model(Plain):
    pass
