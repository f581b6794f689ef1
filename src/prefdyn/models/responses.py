r"""What the head sees of longer responses: their gradient features, mean states and log-probabilities, in one pass.

The prompt is read once for both responses; logits exist where a response token is predicted, for a block of tokens at a
time. Sketch, mean state and log-probability of a response come from the same states.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from prefdyn._cache import cache_root
from prefdyn._progress import step, track
from prefdyn._random import stream
from prefdyn.errors import ConfigError, StoreError
from prefdyn.models.forward import batch_room, runs
from prefdyn.models.head import head_log_probs
from prefdyn.models.load import LanguageModel
from prefdyn.models.log_probs import PairScorer, TokenStates
from prefdyn.models.pair_shards import PairReader, SortedPairs, read_pairs
from prefdyn.models.shards import CACHE_SCHEMA, unchecked
from prefdyn.models.sketch import Buckets, SketchedHead, exact_gram, factor
from prefdyn.models.team import Team
from prefdyn.models.token_pairs import TokenPairs
from prefdyn.provenance import content_hash
from prefdyn.store import read_manifest, write_manifest

_MEASURED_PAIRS = 64
"""Most pairs on which the error of a sketch is measured."""
_MEASURED_WORK = 3e11
"""Operations that this may take in any case: some seconds of a CPU."""
_FEWEST = 8
"""Pairs, and tokens of each response, that are always looked at as far as there are any."""
_UNSKETCHED_PAIRS = 2000
"""Most pairs without a sketch: every two of their responses are multiplied."""
_UNSKETCHED_BYTES = 4 * 2**30
"""Most memory for the states of all their tokens."""


def read_responses(
    lm: LanguageModel,
    pairs: TokenPairs,
    *,
    sketch: int,
    ids: Sequence[str],
    check: str = "quick",
    batch_tokens: int | None = None,
    cache: bool = True,
    team: Team | None = None,
    progress: bool = True,
    limit: Callable[[float], str] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Features of pairs of longer responses.

    Args:
        lm: The model.
        pairs: Of kind `responses`.
        sketch: Numbers to keep of each response; 0: features whose inner products are those of the gradients
            themselves, in float64, for up to 2,000 pairs.
        ids: Name of each pair, for errors.
        check: Which self-checks: "quick"; "full", with the sketch's error on whole responses whatever that costs; or
            "none": every response is read beside others of its length alone, and the sketch's error is not measured.
        batch_tokens: Tokens per forward pass; by device unless given.
        cache: Keep what was read, and use what was kept.
        team: The processes that share the work; None for this one alone.
        progress: Show a bar where stderr is a terminal.
        limit: Fraction of the work that takes ten minutes → the advice to give for long work.

    Returns:
        Arrays by the names of `FeatureSet`, and what is to be told of the reading: the sketch, its error as measured
        (see `sketch_error`), how many prompts and tokens.

    Raises:
        ConfigError: Too many pairs for no sketch.
        ModelError: A number is not finite; names its pair.
        StoreError: The cache cannot be written.
    """
    told: dict[str, Any] = {
        "sketch": sketch or None,
        "sketch_error": None,
        "prompts": len(pairs.prompts),
        "prompt_tokens": sum(map(len, pairs.prompts)),
        "response_tokens": sum(map(len, pairs.chosen)) + sum(map(len, pairs.rejected)),
    }
    if not sketch:
        return _unsketched(lm, pairs, told["response_tokens"], progress=progress), told
    buckets = Buckets.draw(len(lm.head_weight), lm.hidden_size, size=sketch)
    given = SortedPairs.of(pairs)
    worker = _FeatureReader(lm, given, buckets=buckets, batch_tokens=batch_tokens, share=check != "none", check=check)
    found = read_pairs(
        worker, given, "responses", settings=f"sketch={sketch}{unchecked(check)}", cache=cache, team=team,
        progress=progress, ids=ids, limit=limit,
    )  # fmt: skip
    if check != "none" and (team is None or team.main):
        told["sketch_error"] = _known_error(worker, given, whole=check == "full", cache=cache, progress=progress)
    return _named(found), told


def _head(lm: LanguageModel) -> tuple[torch.Tensor, torch.Tensor | None, float]:
    return lm.head_weight, lm.head_bias, lm.head_scale


class _FeatureReader(PairReader):
    doing = "reading responses"
    measured = "gradient of"

    def __init__(self, lm: LanguageModel, pairs: SortedPairs, *, buckets: Buckets, **further: Any) -> None:
        super().__init__(lm, pairs, **further)
        self.buckets = buckets

    @cached_property
    def head(self) -> SketchedHead:
        """Made where there is something to read."""
        return SketchedHead(*_head(self.lm), buckets=self.buckets)

    def batches(self, items: SortedPairs, start: int, stop: int, /) -> Any:
        """Rows start to stop in batches within the token budget."""
        assert self.head is not None  # made before threads ask for it
        return super().batches(items, start, stop)

    def measure(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Sketches, mean states and log-probabilities of some pairs."""
        states, targets, lengths = self.scorer.token_states(rows)
        sketches, log_probs = self.head.read(states, targets, lengths)
        return _by_side(sketches.float(), _means(states, lengths).float(), log_probs)


def _by_side(features: torch.Tensor, states: torch.Tensor, log_probs: torch.Tensor) -> dict[str, np.ndarray]:
    """Of all chosen responses, then all rejected ones: arrays of either side."""
    found = {}
    for name, values in (("features", features), ("states", states), ("logps", log_probs)):
        for side, part in zip(("chosen", "rejected"), values.chunk(2), strict=True):
            found[f"{side}_{name}"] = part.cpu().numpy()
    return found


def _means(states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Mean state (r, d) of each response."""
    kind = torch.promote_types(states.dtype, torch.float32)
    return torch.segment_reduce(states.to(kind), "mean", lengths=lengths.to(states.device), unsafe=True)


def _named(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The arrays as a FeatureSet calls them."""
    return {
        "chosen_features": found["chosen_features"],
        "rejected_features": found["rejected_features"],
        "states": found["chosen_states"] - found["rejected_states"],
        "chosen_states": found["chosen_states"],
        "ref_chosen_logps": np.minimum(found["chosen_logps"], 0.0),
        "ref_rejected_logps": np.minimum(found["rejected_logps"], 0.0),
    }


# without a sketch ----------------------------------------------------------------------------------------------------


def _unsketched(lm: LanguageModel, pairs: TokenPairs, tokens: int, *, progress: bool) -> dict[str, Any]:
    size = tokens * lm.hidden_size * 8
    if len(pairs) > _UNSKETCHED_PAIRS or size > _UNSKETCHED_BYTES:
        raise ConfigError(
            f"without a sketch every two of the {2 * len(pairs)} responses are multiplied, and the states of their "
            f"{tokens} tokens take {size / 2**30:.2g} GiB; keep under {_UNSKETCHED_PAIRS} pairs and "
            f"{_UNSKETCHED_BYTES / 2**30:g} GiB (--limit, --max-length), or use a sketch"
        )
    found = token_states(lm, pairs, np.arange(len(pairs)), dtype=torch.float64, progress=progress)
    features = torch.from_numpy(factor(exact_gram(*found, *_head(lm))))
    each = head_log_probs(found.states, found.targets[:, None], *_head(lm))[:, 0]
    log_probs = torch.segment_reduce(each.detach(), "sum", lengths=found.lengths, unsafe=True)
    return _named(_by_side(features, _means(found.states, found.lengths), log_probs))


def token_states(
    lm: LanguageModel,
    pairs: TokenPairs,
    rows: np.ndarray,
    *,
    scorer: PairScorer | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = False,
) -> TokenStates:
    """The states that predict every response token of some pairs, all in memory, without gradient.

    Args:
        lm: The model, read in evaluation mode.
        pairs: Of kind `responses`.
        rows: Places of the pairs.
        scorer: Of the same model and pairs, where there is one.
        dtype: Of the states that are kept; the model's own unless given.
        progress: Show a bar where stderr is a terminal.
    """
    scorer = scorer or PairScorer(lm, pairs)
    sizes = [len(pairs.prompts[pairs.prompt[row]]) + len(pairs.chosen[row]) + len(pairs.rejected[row]) for row in rows]
    order = np.argsort(sizes, kind="stable")
    room, pass_cost = batch_room(torch.device(lm.device).type)
    batches = [order[part] for part in runs(np.asarray(sizes)[order], budget=room, pass_cost=pass_cost)]
    states: list[torch.Tensor] = [torch.empty(0)] * (2 * len(rows))
    targets = list(states)
    training = lm.model.training
    lm.model.eval()
    try:
        for batch in track(batches, "States", unit="batches", shown=progress):
            with torch.no_grad():
                found = scorer.token_states(rows[batch])
            lengths = found.lengths.tolist()
            kept = found.states if dtype is None else found.states.to(dtype)
            parts = zip(kept.split(lengths), found.targets.split(lengths), strict=True)
            for place, (one, token) in zip([*batch.tolist(), *(batch + len(rows)).tolist()], parts, strict=True):
                states[place], targets[place] = one, token
    finally:
        lm.model.train(training)
    each = torch.tensor([len(ids) for ids in targets], device=targets[0].device)
    return TokenStates(torch.cat(states), torch.cat(targets), each)


# the sketch's error --------------------------------------------------------------------------------------------------


def sketch_error(
    lm: LanguageModel,
    pairs: TokenPairs,
    buckets: Buckets,
    rows: np.ndarray,
    *,
    cut: int | None = None,
    scorer: PairScorer | None = None,
    head: SketchedHead | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    r"""How far the sketched kernel is off on some pairs, against the unsketched one.

    Args:
        lm: The model.
        pairs: Of kind `responses`.
        buckets: The sketch.
        rows: Places of the pairs that are looked at.
        cut: Tokens of each response that are looked at, from its first; None for all of them.
        scorer: Of the same model and pairs, where there is one.
        head: Of the same model and sketch, where there is one.
        progress: Show a bar where stderr is a terminal.

    Returns:
        `pairs`; `tokens`, which is `cut`; `rms` and `largest` deviation of $C_{ij}$, i ≠ j, in units of
        $\sqrt{C_{ii} C_{jj}}$; `expected`: root mean square by the law of `Buckets` where no two coordinates share a
        bucket. NaN-free: None under two pairs.
    """
    found = token_states(lm, pairs, rows, scorer=scorer)
    if cut is not None:
        found = _beginnings(found, cut)
    sketches, _ = (head or SketchedHead(*_head(lm), buckets=buckets)).read(*found)
    chosen, rejected = sketches.double().cpu().numpy().reshape(2, len(rows), -1)
    exact = exact_gram(*found, *_head(lm), of_pairs=True, progress=progress)
    lengths = np.sqrt(np.maximum(np.diag(exact), 0.0))
    known = np.flatnonzero(lengths > 0)
    if len(known) < 2:
        return {"pairs": len(known), "tokens": cut, "rms": None, "largest": None, "expected": None}
    unit = np.outer(lengths, lengths)[np.ix_(known, known)]
    sketched = (chosen - rejected) @ (chosen - rejected).T
    apart = ~np.eye(len(known), dtype=bool)
    off = ((sketched - exact)[np.ix_(known, known)] / unit)[apart]
    cosine = (exact[np.ix_(known, known)] / unit)[apart]
    return {
        "pairs": len(known),
        "tokens": cut,
        "rms": float(np.sqrt(np.mean(off**2))),
        "largest": float(np.abs(off).max()),
        "expected": float(np.sqrt(np.mean(1 + cosine**2) / buckets.size)),
    }


def _beginnings(found: TokenStates, cut: int) -> TokenStates:
    """The first tokens of each response alone."""
    ends = found.lengths.cumsum(0)
    place = torch.arange(len(found.states), device=ends.device)
    response = torch.searchsorted(ends, place, right=True)
    kept = place - (ends - found.lengths)[response] < cut
    return TokenStates(found.states[kept], found.targets[kept], found.lengths.clamp(max=cut))


def measured_sample(
    pairs: TokenPairs, *, width: int, vocabulary: int, whole: bool = False
) -> tuple[np.ndarray, int | None]:
    """Places of the pairs on which the error of a sketch is measured, and how many tokens of each response.

    All tokens of 64 pairs, where that costs no more than a twentieth of what the head costs in reading all the pairs,
    or than some seconds. Else fewer tokens, and then fewer pairs: a large vocabulary would take longer to check than
    to read. `whole`: all tokens of 64 pairs, whatever that costs.
    """
    drawn = stream(0, "sketch error").permutation(len(pairs))
    lengths = np.asarray([[len(one), len(two)] for one, two in zip(pairs.chosen, pairs.rejected, strict=True)])
    room = math.inf if whole else max(lengths.sum() / 20, _MEASURED_WORK / (2 * width * vocabulary))
    count, cut = min(_MEASURED_PAIRS, len(pairs)), int(lengths.max())

    def cost() -> int:
        """In products of one state with the head: logits twice; gradients once and every two of them, or else every two
        tokens' residuals."""
        tokens = int(np.minimum(lengths[drawn[:count]], cut).sum())
        return 2 * tokens + (tokens * tokens // width if tokens <= width else tokens + count * count)

    while cost() > room and (cut > _FEWEST or count > _FEWEST):
        if cut > _FEWEST:
            cut = max(_FEWEST, cut // 2)
        else:
            count = max(_FEWEST, count // 2)
    rows = np.sort(drawn[:count])
    return rows, cut if cut < lengths[rows].max() else None


def _known_error(
    worker: _FeatureReader, given: SortedPairs, *, whole: bool, cache: bool, progress: bool
) -> dict[str, Any]:
    """The error on a sample of the pairs, which the pairs' tokens alone decide; kept beside the features."""
    lm = worker.lm
    key = content_hash(
        [
            f"sketch error {CACHE_SCHEMA}",
            lm.fingerprint,
            lm.dtype,
            str(worker.buckets.size),
            given.digest,
            *(["whole"] if whole else []),
        ]
    )
    path = cache_root() / "sketch-errors" / f"{key}.json" if cache else None
    if path is not None and path.exists():
        with contextlib.suppress(StoreError, KeyError, TypeError, ValueError):
            known = read_manifest(path, kind="sketch error", fix="it is measured again")
            if known["key"] == key:
                return dict(known["error"])
    rows, cut = measured_sample(given.pairs, width=lm.hidden_size, vocabulary=lm.vocabulary, whole=whole)
    with step(f"Measuring the error of the sketch on {len(rows)} pairs (--check none leaves it out)", shown=progress):
        found = sketch_error(
            lm, given.pairs, worker.buckets, rows, cut=cut, scorer=worker.scorer, head=worker.head, progress=progress
        )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(path, {"kind": "sketch error", "files": [], "key": key, "error": found})
    return found
