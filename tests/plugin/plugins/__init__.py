"""A plug-in with something of each kind."""

__version__ = "1.2"
