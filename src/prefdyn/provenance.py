"""Where a result came from: model, data, settings, seed and versions. No clock and no machine name, so equal work
leaves equal bytes."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "pyarrow", "torch", "transformers", "tokenizers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a result was made from. Every part is plain JSON."""

    data: Mapping[str, Any] = field(default_factory=dict)
    """Name, number of pairs and sha256 of the dataset."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Name, revision or sha256 of the weights, dtype, device, attention."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The resolved settings of the step that made the result."""
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The same as a plain dictionary."""
        return {
            "data": dict(self.data),
            "model": dict(self.model),
            "settings": dict(self.settings),
            "seed": self.seed,
            "versions": dict(self.versions),
        }


def versions() -> dict[str, str]:
    """Versions of Python, prefdyn and the libraries whose numbers reach a result. Imports none of them."""
    found = {"python": platform.python_version()}
    for name in ("prefdyn", *_LIBRARIES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def content_hash(parts: Iterable[bytes | str]) -> str:
    """sha256 of a sequence of parts, each preceded by its length, so that no two sequences collide by joining.

    Example:
        >>> content_hash(["ab", "c"]) == content_hash(["a", "bc"])
        False
    """
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()
