"""The method of arXiv 2307.16867 in plain PyTorch, written from its description alone.

It imports nothing of petl_bench and prefers the obvious way to the quick one.
"""
