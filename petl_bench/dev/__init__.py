"""Tools of the maintainers: benchmarks, the bundled backbone, tuned settings, generated documentation."""
