"""Logits of a head of any size, for a block of states and a block of tokens at a time, and sums of their exponentials.

A small head meets a block of states whole. A large one does not: its logits leave room for so few states that reading
the head takes longer than multiplying by it. It is then read part by part, each part by many states, and what is summed
over tokens is kept relative to the largest logit so far.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

LOGITS = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Numbers in one block of logits: on a CPU about what its caches hold, on a GPU what keeps it busy."""
_ROWS = 128
"""Fewest states that share a reading of the head: eight of them take ten times as long as 256."""
COLUMNS = 16384
"""Rows of the head at a time, where it is not read whole or is turned to a wider dtype."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """What turns a state into logits: scale · (state · W + bias), bent to cap · tanh(logit / cap) if there is a cap."""

    weight: torch.Tensor
    """(V, d)."""
    bias: torch.Tensor | None = None
    """(V,)."""
    scale: float = 1.0
    cap: float | None = None

    def rows(self, states: int, *, multiple: int = 1) -> Iterator[tuple[int, int]]:
        """First and last-plus-one state of each block of so many states."""
        step = self._shape(multiple)[0]
        for low in range(0, states, step):
            yield low, min(low + step, states)

    def tiles(self, given: torch.Tensor, *, multiple: int = 1) -> Iterator[tuple[int, torch.Tensor]]:
        """First token and logits of each block of tokens, at one block of states in the dtype to compute in.

        The next block overwrites the last.

        Args:
            given: One block of `rows`.
            multiple: The first token of each block is one of this number.
        """
        columns = self._shape(multiple)[1]
        room = given.new_empty(len(given), columns)
        for first in range(0, len(self.weight), columns):
            last = min(first + columns, len(self.weight))
            block = room[:, : last - first]
            for at, part in self.parts(first, last, given.dtype):
                torch.mm(given, part.T, out=block[:, at : at + len(part)])
            if self.bias is not None:
                block += self.bias.detach()[first:last].to(given.dtype)
            if self.scale != 1.0:
                block *= self.scale
            if self.cap is not None:
                bend(block, self.cap)
            yield first, block

    def parts(self, first: int, last: int, kind: torch.dtype) -> Iterator[tuple[int, torch.Tensor]]:
        """Rows of the weight from one token to another in some dtype, and where each part begins among them."""
        given = self.weight.detach()[first:last]
        if given.dtype == kind:
            yield 0, given
            return
        for at in range(0, len(given), COLUMNS):
            yield at, given[at : at + COLUMNS].to(kind)

    def add_back(self, block: torch.Tensor, first: int, *, to: torch.Tensor) -> None:
        """Add block @ weight, of the tokens from `first` on."""
        for at, part in self.parts(first, first + block.shape[1], block.dtype):
            to.addmm_(block[:, at : at + len(part)], part)

    def _shape(self, multiple: int) -> tuple[int, int]:
        """States and tokens in one block."""
        vocabulary = len(self.weight)
        numbers = LOGITS.get(self.weight.device.type, LOGITS["cpu"])
        if vocabulary * _ROWS <= numbers:
            return numbers // vocabulary, vocabulary
        columns = min(vocabulary, max(1, COLUMNS // multiple) * multiple)
        return max(1, numbers // columns), columns


def bend(logits: torch.Tensor, cap: float) -> None:
    """Bound logits in place."""
    logits.div_(cap).tanh_().mul_(cap)


def slope(logits: torch.Tensor, cap: float) -> torch.Tensor:
    """How much a bounded logit moves with the one that it was."""
    return (logits / cap).square_().neg_().add_(1.0)


class Exponentials:
    """Sums over the tokens of exp(logit), of a block of states, from one block of tokens after another.

    Example:
        >>> found = Exponentials()
        >>> for logits in (torch.tensor([[0.0, 1.0]]), torch.tensor([[500.0]])):
        ...     _ = found.add(logits)
        >>> found.log()
        tensor([[500.]])
    """

    def __init__(self) -> None:
        self.top: torch.Tensor | None = None
        """Largest logit so far (b, 1)."""
        self.total = torch.empty(0)
        """Sum of exp(logit − top) (b, 1)."""

    def add(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Turn a further block into exp(logit − top), in place, and sum it.

        Returns:
            The factor (b, 1) by which sums of earlier blocks' exponentials are now too large; None at the first.
        """
        peak = logits.amax(1, keepdim=True)
        if self.top is None:
            self.top, shrunk = peak, None
            self.total = logits.sub_(peak).exp_().sum(1, keepdim=True)
            return shrunk
        new = torch.maximum(self.top, peak)
        shrunk = (self.top - new).exp_()
        self.top = new
        self.total = (self.total * shrunk).add_(logits.sub_(new).exp_().sum(1, keepdim=True))
        return shrunk

    def log(self) -> torch.Tensor:
        """Log of the sum of exp(logit) (b, 1)."""
        assert self.top is not None
        return self.top + self.total.log()
