"""Reference implementations in plain Python and PyTorch, written from the papers and repositories alone.

They import nothing of petl_bench and prefer the obvious way to the fast one.
"""
