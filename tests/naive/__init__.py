"""Slow, obvious twins: loops and full matrices, written from THEORY alone, sharing no code with the package."""
