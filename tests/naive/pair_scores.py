"""Scores of pairs the slow, obvious way: every response in a padded row with its prompt, full logits, one softmax."""

from typing import Any, NamedTuple

import numpy as np
import torch


class NaiveScores(NamedTuple):
    """What `prefdyn.models.log_probs.PairScores` holds."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    states: torch.Tensor


class NaivePairScorer(torch.nn.Module):
    """The twin of `PairScorer`: same arguments, no sharing of anything, gradients through everything.

    `share` and `normaliser_gradient` are taken and not used: nothing is shared, and the log-normaliser always carries
    its gradient (of chosen minus rejected that is the same where both are one token).
    """

    def __init__(
        self, lm: Any, pairs: Any, *, share: bool = True, normaliser_gradient: bool = False, double: bool = False
    ) -> None:
        """`double`: log-softmax and sums in float64, and scores so returned."""
        super().__init__()
        self.model = lm.model
        self.pairs = pairs
        self.dtype = torch.float64 if double else torch.float32

    def forward(self, rows: np.ndarray) -> NaiveScores:
        """Scores of some pairs, by their place."""
        prompts = [self.pairs.prompts[self.pairs.prompt[row]] for row in rows.tolist()]
        sides = {name: [getattr(self.pairs, name)[row] for row in rows.tolist()] for name in ("chosen", "rejected")}
        scores, states = {}, {}
        for name, responses in sides.items():
            texts = [(*prompt, *response) for prompt, response in zip(prompts, responses, strict=True)]
            longest = max(map(len, texts))
            ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
            mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
            device = next(self.model.parameters()).device
            out = self.model(
                input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False, output_hidden_states=True
            )
            log_probs = torch.log_softmax(out.logits.to(self.dtype), dim=-1)
            hidden = out.hidden_states[-1].detach().float()
            found, means = [], []
            for at, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
                places = range(len(prompt) - 1, len(prompt) + len(response) - 1)
                terms = [log_probs[at, place, token] for place, token in zip(places, response, strict=True)]
                found.append(torch.stack(terms).sum())
                means.append(hidden[at, list(places)].mean(0))
            scores[name], states[name] = torch.stack(found), torch.stack(means)
        both = states["chosen"] if self.pairs.kind == "answers" else states["chosen"] - states["rejected"]
        return NaiveScores(scores["chosen"], scores["rejected"], both)
