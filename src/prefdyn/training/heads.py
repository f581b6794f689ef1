"""Last-layer training: the body has been read once, and the head is all that moves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from prefdyn.dynamics.measure import log_rest, shifts
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.models.head import head_log_probs
from prefdyn.models.load import LanguageModel
from prefdyn.models.log_probs import PairScores
from prefdyn.models.responses import token_states
from prefdyn.models.token_pairs import TokenPairs
from prefdyn.training.memory import available_bytes

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class AnswerHead(torch.nn.Module):
    """The head's rows of the answer tokens, as parameters, over states that stay.

    Where answers are one token each, these are the only rows that a preference loss moves (THEORY 1.2). The logits of
    all other tokens stand still, so the log-normaliser follows from the reference's.
    """

    def __init__(
        self, feats: FeatureSet, *, precision: str = "float64", device: str = "cpu", normaliser_gradient: bool = False
    ) -> None:
        """Args: features of kind `answers`; dtype of everything; where to; whether the loss reads log-probabilities."""
        super().__init__()
        if feats.chosen is None or feats.rejected is None:
            raise DataError("these features are of longer responses; give the data and the model instead of features")
        dtype = DTYPES[precision]

        def put(values: np.ndarray, kind: torch.dtype = dtype) -> torch.Tensor:
            return torch.from_numpy(np.array(values)).to(device=device, dtype=kind)

        head = np.zeros((len(feats.tokens), feats.states.shape[1])) if feats.head is None else feats.head
        before = feats.answer_log_probs()
        if before is None and normaliser_gradient:
            raise DataError("these features carry no reference log-probabilities, which SFT reads; extract them again")
        self.head = torch.nn.Parameter(put(head))
        self.start: torch.Tensor
        self.states: torch.Tensor
        self.register_buffer("start", put(head), persistent=False)
        self.register_buffer("states", put(feats.states), persistent=False)
        self.chosen = put(feats.chosen, torch.int64)
        self.rejected = put(feats.rejected, torch.int64)
        self.before = None if before is None else put(before)
        self.rest = None if before is None else put(log_rest(before))
        self.normaliser_gradient = normaliser_gradient

    @property
    def has_log_probs(self) -> bool:
        """Whether scores are log-probabilities, or their changes but for a term that chosen and rejected share."""
        return self.before is not None

    def start_log_probs(self) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Log-probabilities of chosen and rejected answers before the first step, to the bit as `forward` has them."""
        with torch.no_grad():
            found = self.forward(np.arange(len(self.states)))
        return found.chosen.double().cpu().numpy(), found.rejected.double().cpu().numpy()

    def forward(self, rows: Int[np.ndarray, " b"]) -> PairScores:
        """Log-probabilities of both answers of some pairs, in the dtype of the head."""
        index = torch.from_numpy(rows).to(self.states.device)
        states, chosen, rejected = self.states[index], self.chosen[index, None], self.rejected[index, None]
        moved = states @ (self.head - self.start).T
        up, down = moved.gather(1, chosen)[:, 0], moved.gather(1, rejected)[:, 0]
        if self.before is not None and self.rest is not None:
            before = self.before[index]
            with torch.set_grad_enabled(self.normaliser_gradient and torch.is_grad_enabled()):
                shift = shifts(moved[:, None, :], self.rest[index], before)[:, 0]
            up = before.gather(1, chosen)[:, 0] + up - shift
            down = before.gather(1, rejected)[:, 0] + down - shift
        return PairScores(up, down, states)


class ResponseHead(torch.nn.Module):
    """The whole head as a parameter, over the states from which every token of the responses is predicted.

    Exact: the log-normaliser moves with every row. Nothing of the size tokens × vocabulary is ever held.
    """

    def __init__(
        self,
        head: torch.Tensor,
        states: Sequence[torch.Tensor],
        targets: Sequence[torch.Tensor],
        *,
        bias: torch.Tensor | None = None,
        scale: float = 1.0,
        precision: str = "float32",
        device: str = "cpu",
    ) -> None:
        """Take the head (V, d) and, for each of 2m responses, states (t, d) and the tokens (t,) that they predict.

        The m chosen responses come first, then the m rejected ones in the same order.
        """
        super().__init__()
        dtype = DTYPES[precision]
        self.head = torch.nn.Parameter(head.detach().to(device=device, dtype=dtype, copy=True))
        self.states: torch.Tensor
        self.register_buffer("states", torch.cat(list(states)).to(device=device, dtype=dtype), persistent=False)
        self.targets = torch.cat(list(targets)).to(device)[:, None]
        self.bias = None if bias is None else bias.detach().to(device=device, dtype=dtype)
        self.scale = scale
        self.lengths = np.asarray([len(each) for each in targets], dtype=np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])

    @property
    def has_log_probs(self) -> bool:
        """Always: every row of the head is here."""
        return True

    def start_log_probs(self) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Log-probabilities of both responses of every pair with the head as it is."""
        found = []
        with torch.no_grad():
            for rows in np.array_split(np.arange(len(self.lengths) // 2), max(1, len(self.lengths) // 256)):
                scores = self.forward(rows)
                found.append(torch.stack([scores.chosen, scores.rejected]).double().cpu().numpy())
        chosen, rejected = np.concatenate(found, axis=1)
        return chosen, rejected

    def forward(self, rows: Int[np.ndarray, " b"]) -> PairScores:
        """Log-probabilities of both responses of some pairs, summed over their tokens."""
        both = np.concatenate([rows, rows + len(self.lengths) // 2])
        places = np.concatenate([np.arange(*self.offsets[at : at + 2].tolist()) for at in both.tolist()])
        index = torch.from_numpy(places).to(self.states.device)
        lengths = torch.from_numpy(self.lengths[both]).to(self.states.device)
        states = self.states.index_select(0, index)
        found = head_log_probs(states, self.targets[index], self.head, self.bias, self.scale)[:, 0]
        sums = torch.segment_reduce(found.double(), "sum", lengths=lengths, unsafe=True).to(found.dtype)
        means = torch.segment_reduce(states, "mean", lengths=lengths, unsafe=True)
        size = len(rows)
        return PairScores(sums[:size], sums[size:], means[:size] - means[size:])


def response_head(lm: LanguageModel, tokens: TokenPairs, *, precision: str, progress: bool = True) -> ResponseHead:
    """The head of a model over the states of all its pairs' responses, read once.

    Raises:
        ConfigError: The states would not fit into half of the free memory.
    """
    held = sum(map(len, tokens.chosen)) + sum(map(len, tokens.rejected))
    size = held * lm.hidden_size * DTYPES[precision].itemsize
    free = available_bytes(lm.device)
    if free is not None and size > free / 2:
        raise ConfigError(
            f"the states of {held} response tokens take {size / 2**30:.1f} GiB of {free / 2**30:.1f} GiB that are "
            "free; take fewer pairs (--limit), shorter ones (--max-length), or --tune lora"
        )
    found = token_states(lm, tokens, np.arange(len(tokens)), progress=progress)
    sizes = found.lengths.tolist()
    return ResponseHead(
        lm.head_weight, found.states.split(sizes), found.targets.split(sizes), bias=lm.head_bias, scale=lm.head_scale,
        precision=precision, device=lm.device,
    )  # fmt: skip


def head_settings(feats: FeatureSet, optimizer: Any) -> None:
    """Refuse what these features cannot give: a decay pulls the head itself towards 0.

    Raises:
        ConfigError: The optimizer decays weights, and the features carry no head rows.
    """
    if optimizer.weight_decay and feats.head is None:
        raise ConfigError(
            f"weight_decay is {optimizer.weight_decay!r}, which pulls the head itself towards 0, and these features "
            "carry no head rows; extract them from a model, or set weight_decay to 0"
        )
