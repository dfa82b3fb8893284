"""Definitions that several files of the plug-in import."""

RATE = 0.5
