"""Log-probabilities of preference pairs under a model, differentiable, at the least cost that is exact.

Answers of one token need one pass over the prompt for both. Longer responses follow their prompt one after the other,
each blind to the other, so that the prompt is read once. Pairs are packed into rows, which begin with what all prompts
begin with, so that little is padding and a template is read once per row. Only states that predict a token of a
response reach the head.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from prefdyn._progress import step
from prefdyn.errors import ModelError
from prefdyn.models.head import head_log_probs
from prefdyn.models.load import LanguageModel
from prefdyn.models.mates import LOOSE, deviation, lengths_apart
from prefdyn.models.packing import CHOSEN, PROMPT, REJECTED, BatchLayout, Text, common_prefix, lay_out, row_length
from prefdyn.models.token_pairs import TokenPairs

_GLANCED = 8192
"""Tokens of a vocabulary of over four times as many that are looked at where two ways to read are compared."""


class PairScores(NamedTuple):
    """What a model gives to each of b pairs."""

    chosen: torch.Tensor
    """Log-probability (b,) of the chosen response, summed over its tokens, nats; float32, or float64 of such models."""
    rejected: torch.Tensor
    states: torch.Tensor
    """(b, d), detached. Answers: final state at the last prompt token. Responses: mean state that predicts the chosen
    tokens minus the mean state that predicts the rejected ones."""


class TokenStates(NamedTuple):
    """What predicts each token of b pairs' responses: all chosen responses first, then all rejected ones."""

    states: torch.Tensor
    """(t, d), in the dtype of the model."""
    targets: torch.Tensor
    """(t,) the token that each predicts."""
    lengths: torch.Tensor
    """(2b,) tokens of each response."""


class Read(NamedTuple):
    """Scores of b pairs that share no token with each other, and whose each token of the pass was."""

    scores: PairScores
    owner: list[np.ndarray]
    """(tokens,) of each call of the model's trunk: the place of the token's pair among the b; below 0 for padding."""
    part: list[np.ndarray]
    """(tokens,) alike: PROMPT, or CHOSEN and REJECTED for what the other response does not depend on."""


class PairScorer(torch.nn.Module):
    """Scores pairs with one model; differentiable where gradients are enabled and parameters want them.

    Where dropout is active, pairs share no tokens with each other, as each draws its own; the two responses of a pair
    still share their prompt, and so its draws.
    """

    def __init__(
        self,
        lm: LanguageModel,
        pairs: TokenPairs,
        *,
        share: bool = True,
        check: str = "quick",
        normaliser_gradient: bool = False,
    ) -> None:
        """Check on a few pairs that packed rows give what the plain way gives, and choose.

        Args:
            lm: The model, with its adapters if any. Its parameters become this module's, under `model`.
            pairs: What can be scored.
            share: Pack pairs into rows and read shared tokens once. False: the plain way, every response in a padded
                row with its prompt (one-token answers: every prompt in a padded row).
            check: "none": nothing is tried; with `share` off, every batch holds responses of one length only.
            normaliser_gradient: Whether the log-normaliser of one-token answers carries a gradient. It cancels from
                chosen − rejected, so that only objectives that look at one of them alone need it. Of longer responses
                it always does.

        Raises:
            ModelError: The head carries an adapter.
        """
        super().__init__()
        self.model = lm.model
        self.lm = lm
        self.pairs = pairs
        self.normaliser_gradient = normaliser_gradient
        self.answers = pairs.kind == "answers"
        if hasattr(lm.model.get_output_embeddings(), "base_layer"):
            raise ModelError(
                f"the head of {lm.name} carries an adapter, which its log-probabilities would miss; leave the head out "
                "of the adapter's target modules"
            )
        self.why_not: str | None = "share is off"
        """Why tokens are not shared, where they are not."""
        self._room = 0
        """Tokens of the longest row that was checked."""
        self._dropouts = _dropouts(self.model)
        self.equal_lengths = False
        """Whether a batch holds responses of one length only, since others would change what the model says of them."""
        if check == "none":
            self.equal_lengths, self.why_not = True, "nothing was checked"
            return
        with step(f"Checking how {lm.name} reads pairs beside each other (--check none leaves it out)"):
            self._check_mates()
            if share:
                self._check()

    @property
    def shared(self) -> bool:
        """Whether pairs are packed into rows and share tokens."""
        return self.why_not is None

    def forward(self, rows: np.ndarray) -> PairScores:
        """Scores of some pairs.

        Args:
            rows: Their places in `pairs` (b,), at least one.
        """
        return self._scores(*self._read(np.asarray(rows, dtype=np.int64)))

    def read_apart(self, rows: np.ndarray) -> Read:
        """Scores of some pairs, each with its own copy of what prompts share, and whose token is whose.

        So a gradient at a token is that of one pair's scores.

        Args:
            rows: Their places in `pairs` (b,), at least one.
        """
        hidden, batch = self._read(np.asarray(rows, dtype=np.int64), apart=True)
        owner, part = zip(*batch["calls"], strict=True)
        return Read(self._scores(hidden, batch), list(owner), list(part))

    def token_states(self, rows: np.ndarray) -> TokenStates:
        """The states from which the tokens of some pairs' responses are predicted.

        Args:
            rows: Their places in `pairs` (b,), at least one. The pairs must be of kind `responses`.
        """
        assert not self.answers
        hidden, batch = self._read(np.asarray(rows, dtype=np.int64))
        states = hidden.flatten(0, 1).index_select(0, batch["index"])
        return TokenStates(states, batch["targets"][:, 0], batch["lengths"])

    def _read(self, rows: np.ndarray, *, apart: bool = False) -> tuple[torch.Tensor, dict[str, Any]]:
        """Final states (rows, tokens, d) and the places and targets in them; `apart`: no prefix is shared."""
        if not self.shared:
            return self._plain(rows)
        texts = texts_of(self.pairs, rows)
        if max(map(len, texts)) > self._room:  # one pass of the model all the same, as FSDP counts passes
            return self._plain(rows)
        alike = not apart and not any(module.training for module in self._dropouts)
        layout = lay_out(texts, width=self.lm.hidden_size, room=self._room, share_prefix=alike, answers=self.answers)
        return self._packed(rows, layout)

    def _packed(self, rows: np.ndarray, layout: BatchLayout) -> tuple[torch.Tensor, dict[str, Any]]:
        batch: dict[str, Any] = self._moved(
            {
                "ids": layout.ids,
                "places": layout.places,
                "owner": layout.owner,
                "part": layout.part,
                "index": layout.index,
                **_targets(self.pairs, rows),
            }
        )
        batch["calls"] = [(layout.owner.ravel(), layout.part.ravel())]
        mask = self._mask(batch, longest=int(layout.places.max()) + 1)
        return self._trunk(batch["ids"], position_ids=batch["places"], attention_mask=mask), batch

    def _plain(self, rows: np.ndarray) -> tuple[torch.Tensor, dict[str, Any]]:
        """Rows that are padded on the right: attention is causal, so nothing sees what fills them."""
        return self._unpacked(rows, equal_lengths=self.equal_lengths)

    def _unpacked(self, rows: np.ndarray, *, equal_lengths: bool) -> tuple[torch.Tensor, dict[str, Any]]:
        ids, index, lengths = _padded(self.pairs, rows)
        inside = np.arange(ids.shape[1]) < lengths[:, None]
        whose = np.where(inside, np.arange(len(ids))[:, None] % len(rows), -2)
        part = np.full(ids.shape, PROMPT)
        if not self.answers:
            part[: len(rows)], part[len(rows) :] = CHOSEN, REJECTED
        batch: dict[str, Any] = self._moved({"ids": ids, "index": index, **_targets(self.pairs, rows)})
        if not equal_lengths:
            batch["calls"] = [(whose.ravel(), part.ravel())]
            return self._trunk(batch["ids"]), batch
        batch["calls"] = []
        parts, places = [], []
        for length in np.unique(lengths).tolist():
            mates = np.flatnonzero(lengths == length)
            at = torch.from_numpy(mates).to(batch["ids"].device)
            batch["calls"].append((whose[mates, :length].ravel(), part[mates, :length].ravel()))
            out = self._trunk(batch["ids"].index_select(0, at)[:, :length])
            parts.append(torch.nn.functional.pad(out, (0, 0, 0, ids.shape[1] - length)))
            places.append(mates)
        back = torch.from_numpy(np.argsort(np.concatenate(places))).to(batch["ids"].device)
        return torch.cat(parts).index_select(0, back), batch

    def _glance(self, hidden: torch.Tensor, batch: dict[str, Any]) -> PairScores:
        """Scores by which two ways to read are compared, the states in units of the largest coordinate that a pair's
        rest on: of a large vocabulary the responses' tokens and some others alone, as a pass over all of it would cost
        more than the reading."""
        known = self._glanced
        if known is None:
            scores = self._scores(hidden, batch)
        else:
            bias = self.lm.head_bias
            few = self.lm.head_weight.detach()[known], None if bias is None else bias.detach()[known]
            scores = self._scores(hidden, {**batch, "targets": torch.searchsorted(known, batch["targets"])}, head=few)
        largest = hidden.flatten(0, 1).index_select(0, batch["index"]).abs().amax(1).to(scores.states.dtype)
        if not self.answers:
            sides = torch.segment_reduce(largest, "max", lengths=batch["lengths"], unsafe=True)
            largest = torch.maximum(*sides.chunk(2))
        return scores._replace(states=scores.states / largest[:, None].clamp_min(1e-30))

    @functools.cached_property
    def _glanced(self) -> torch.Tensor | None:
        """Tokens of such a glance, ascending; None for all."""
        size = len(self.lm.head_weight)
        if size <= 4 * _GLANCED:
            return None
        tokens = {token for side in (self.pairs.chosen, self.pairs.rejected) for response in side for token in response}
        spread = np.linspace(0, size - 1, _GLANCED).astype(np.int64)
        return torch.from_numpy(np.union1d(spread, np.asarray(sorted(tokens)))).to(self.lm.head_weight.device)

    def _scores(
        self,
        hidden: torch.Tensor,
        batch: dict[str, Any],
        *,
        head: tuple[torch.Tensor, torch.Tensor | None] | None = None,
    ) -> PairScores:
        """From final states (rows, tokens, d) to scores; by another head where one is given."""
        lm = self.lm
        states = hidden.flatten(0, 1).index_select(0, batch["index"])
        log_probs = head_log_probs(
            states,
            batch["targets"],
            *(head or (lm.head_weight, lm.head_bias)),
            lm.head_scale,
            cap=lm.head_cap,
            normaliser_gradient=self.normaliser_gradient or not self.answers,
        )
        known = states.detach().to(log_probs.dtype)
        if self.answers:  # copies, as FSDP wants no views from a module
            return PairScores(log_probs[:, 0].clone(), log_probs[:, 1].clone(), known)
        # In float64, so that a sum depends neither on the order of its terms nor on how long the others are.
        lengths = batch["lengths"]
        sums = torch.segment_reduce(log_probs[:, 0].double(), "sum", lengths=lengths, unsafe=True).to(log_probs.dtype)
        chosen, rejected = sums.chunk(2)
        first, second = torch.segment_reduce(known, "mean", lengths=lengths, unsafe=True).chunk(2)
        return PairScores(chosen.clone(), rejected.clone(), first - second)

    def _trunk(self, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        return self.lm.trunk(input_ids=ids, use_cache=False, **options).last_hidden_state

    # whether pairs leave each other alone ---------------------------------------------------------------------------

    def _check_mates(self) -> None:
        if len(self.pairs) == 1 and self.answers:
            return
        sizes = np.asarray([len(text) for text in texts_of(self.pairs, np.arange(len(self.pairs)))])
        with torch.no_grad(), evaluating(self.model):
            self.equal_lengths = lengths_apart(
                sizes,
                lambda rows, apart: self._glance(*self._unpacked(rows, equal_lengths=apart)),
                lm=self.lm,
                depends=f"what {self.lm.name} says of a pair depends on the pairs that are read beside it",
                least=1.0,
            )

    # whether rows can be packed -------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Score the longest pairs and as many short ones as fill two rows both ways."""
        pairs = self.pairs
        every = np.arange(len(pairs))
        sizes = np.asarray([len(text) for text in texts_of(pairs, every)])
        limit = _longest_row(self.model.config)
        fitting = every[sizes <= limit] if limit is not None else every
        if not len(fitting):
            self.why_not = f"every pair is longer than the {limit} tokens that fit into a row of this model"
            return
        order = fitting[np.argsort(sizes[fitting], kind="stable")]
        length = row_length(int(sizes[order[-1]]), common_prefix(pairs.prompts), self.lm.hidden_size)
        length = length if limit is None else min(length, limit)
        short = order[:-2][: int(np.searchsorted(np.cumsum(sizes[order[:-2]]), 2 * length))]
        few = np.concatenate([short, order[-2:]])
        texts = texts_of(pairs, few)
        layout = lay_out(texts, width=self.lm.hidden_size, room=length, share_prefix=True, answers=self.answers, rows=2)
        with torch.no_grad(), evaluating(self.model):
            plain = self._glance(*self._unpacked(few, equal_lengths=True))  # without what fills rows of other lengths
            try:
                packed = self._glance(*self._packed(few, layout))
            except Exception as error:
                said = " ".join(str(error).split())[:120]
                self.why_not = f"the model fails on packed rows ({type(error).__name__}: {said})"
                return
        off = deviation(plain, packed, least=1.0)
        if not off <= LOOSE[self.lm.dtype]:
            self.why_not = f"scores from packed rows deviate by {off:.1g} from the plain way"
            return
        self.why_not = None
        self._room = layout.ids.shape[1]

    # tensors --------------------------------------------------------------------------------------------------------

    def _mask(self, batch: dict[str, torch.Tensor], *, longest: int) -> Any:
        """What each token of a row sees, as the model's attention takes it."""
        seen = _seen(batch["owner"], batch["part"] if not self.answers else None)
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or ())
        if window is None or longest <= window or kinds == {"full_attention"}:
            return self._as_taken(seen)
        at = batch["places"]
        narrow = self._as_taken(seen & (at[:, None, :, None] - at[:, None, None, :] < window))
        if "full_attention" in kinds:
            return {"full_attention": self._as_taken(seen), "sliding_attention": narrow}
        return narrow

    def _as_taken(self, seen: torch.Tensor) -> torch.Tensor:
        if self.lm.attention == "sdpa":
            return seen
        kind = next(self.model.parameters()).dtype
        return torch.zeros(seen.shape, dtype=kind, device=seen.device).masked_fill_(~seen, torch.finfo(kind).min)

    def _moved(self, arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """The arrays of a batch on the model's device, in one copy that nobody waits for."""
        flat = torch.from_numpy(np.concatenate([array.ravel() for array in arrays.values()]))
        if torch.device(self.lm.device).type == "cuda":
            flat = flat.pin_memory()
        parts = flat.to(self.lm.device, non_blocking=True).split([array.size for array in arrays.values()])
        return {name: part.view(array.shape) for (name, array), part in zip(arrays.items(), parts, strict=True)}


# batches -------------------------------------------------------------------------------------------------------------


def texts_of(pairs: TokenPairs, rows: np.ndarray) -> list[Text]:
    """What of each pair is read: of responses all but the last token, of one-token answers nothing."""
    return [
        Text(prompt=pairs.prompts[prompt], chosen=pairs.chosen[row][:-1], rejected=pairs.rejected[row][:-1])
        for row, prompt in zip(rows.tolist(), pairs.prompt[rows].tolist(), strict=True)
    ]


def _targets(pairs: TokenPairs, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The tokens whose log-probabilities are wanted: both answers of each state, or one of each."""
    chosen = [pairs.chosen[row] for row in rows.tolist()]
    rejected = [pairs.rejected[row] for row in rows.tolist()]
    if pairs.kind == "answers":
        return {"targets": np.asarray([(a[0], b[0]) for a, b in zip(chosen, rejected, strict=True)])}
    both = [*chosen, *rejected]
    return {
        "targets": np.asarray([token for response in both for token in response])[:, None],
        "lengths": np.asarray([len(response) for response in both]),
    }


def _padded(pairs: TokenPairs, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids (rows, longest), the flat places of the states that are wanted, and the tokens of each row."""
    texts = texts_of(pairs, rows)
    sides: Sequence[Sequence[tuple[int, ...]]] = [[text.chosen for text in texts]]
    if pairs.kind == "responses":
        sides = [*sides, [text.rejected for text in texts]]
    whole = [(text.prompt, after) for side in sides for text, after in zip(texts, side, strict=True)]
    ids = np.zeros((len(whole), max(len(prompt) + len(after) for prompt, after in whole)), dtype=np.int64)
    index = []
    for row, (prompt, after) in enumerate(whole):
        ids[row, : len(prompt) + len(after)] = (*prompt, *after)
        index.append(row * ids.shape[1] + len(prompt) - 1 + np.arange(len(after) + 1))
    return ids, np.concatenate(index), np.asarray([len(prompt) + len(after) for prompt, after in whole])


def _seen(owner: torch.Tensor, part: torch.Tensor | None) -> torch.Tensor:
    """Which tokens of its row each token sees (rows, 1, length, length): the prefix and its own pair, as far as they
    stand before it, but a rejected response nothing of the chosen one."""
    at = torch.arange(owner.shape[1], device=owner.device)
    seen = (at[:, None] >= at) & ((owner[:, :, None] == owner[:, None, :]) | (owner == -1)[:, None, :])
    if part is not None:
        seen &= ~((part == REJECTED)[:, :, None] & (part == CHOSEN)[:, None, :])
    return seen[:, None]


# the model's state ---------------------------------------------------------------------------------------------------


def _longest_row(config: Any) -> int | None:
    """Tokens after which a row must end: GPT-Neo's attention counts columns of a row, not positions, and its local
    layers see the last few only."""
    kinds = getattr(config, "attention_layers", None)
    if not kinds:
        return None
    return int(config.window_size if "local" in kinds else config.max_position_embeddings)


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and each as it was afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _dropouts(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules that drop something in training, themselves or by a rate that they hand to attention."""
    return [
        module
        for module in model.modules()
        if any(
            isinstance(rate := getattr(module, name, None), float) and rate > 0
            for name in ("p", "dropout", "attention_dropout", "layerdrop")
        )
    ]
