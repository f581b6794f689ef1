"""The tiny models and the cache of their own that the tests of reading a model have."""

from tests.models.conftest import own_cache, tiny

__all__ = ["own_cache", "tiny"]
