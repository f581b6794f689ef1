"""Which pairs hang together: those of one prompt, of near duplicates of it, and what the data say belongs together.

A figure's uncertainty comes from how many such clusters there are, not from how many pairs; and a split that cuts one
in two tests on what was trained on.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from prefdyn.data.codes import encode
from prefdyn.data.near import near_duplicates
from prefdyn.maths.units import in_order, joined


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """How the n pairs of a dataset hang together. Equal integers mark one class, from 0 by first appearance."""

    of: Int[np.ndarray, " n"]
    """By prompt, by near duplicates of prompts, and by the cluster that the data name."""
    near: Int[np.ndarray, " n"]
    """By prompt and near duplicates of prompts alone."""

    def prompts(self, prompt: Int[np.ndarray, " n"]) -> Int[np.ndarray, " classes"]:
        """How many different prompts each class of `near` has: more than one are near duplicates.

        Args:
            prompt: Equal integers for equal prompts, from 0.
        """
        width = int(prompt.max(initial=0)) + 1
        _, first = np.unique(self.near * width + prompt, return_index=True)
        return np.bincount(self.near[first], minlength=int(self.near.max(initial=-1)) + 1)

    @classmethod
    def find(cls, table: pa.Table) -> "Clusters":
        """The clusters of a table with the columns of `prefdyn.data.pairs.SCHEMA`.

        Empty prompts say nothing of what hangs together: each of their pairs stands alone, unless the data name its
        cluster.
        """
        n = table.num_rows
        prompt, prompts = encode(table["prompt"])
        blank = np.array([not text.strip() for text in prompts], dtype=bool)
        near = near_duplicates(prompts)[prompt] if n else prompt
        alone = blank[prompt] if n else np.zeros(0, dtype=bool)
        near = in_order(np.where(alone, near.max(initial=0) + 1 + np.arange(n), near))
        given = table["cluster"]
        if given.null_count == n:
            return cls(of=near, near=near)
        told, names = encode(given.fill_null(""))
        own = len(names) + np.arange(n)  # what names no cluster is of none but its own
        told = np.where(np.asarray(given.is_valid()), told, own)
        return cls(of=joined(near, told), near=near)
