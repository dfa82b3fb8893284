"""`python -m petl_bench` is the `petl-bench` command."""

from petl_bench.cli import main

if __name__ == "__main__":
    main()
