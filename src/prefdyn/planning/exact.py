"""Exact training of the whole head on a sample of long-answer pairs, beside the first-order curve of the same sample.

On longer responses the simulation is first order in the head's movement. How far that carries is measured here: the
same pairs, rate and steps, once by gradient descent on every row of the head, once by the simulation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefdyn._random import stream
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.diagnostics.displacement import displacement
from prefdyn.diagnostics.prioritization import pair_pushes
from prefdyn.dynamics.descent import descent
from prefdyn.dynamics.order import RankCorrelation, rank_correlation
from prefdyn.dynamics.problem import as_seen
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import Objective
from prefdyn.settings import Extraction
from prefdyn.trajectory import Trajectory

BUDGET = 1e12
"""Floating-point operations that a sample may take where its size is not given: about twenty seconds on two cores."""
LEAST = 16
"""Fewer pairs than this are no sample to judge by."""
MOST = 200
"""More are not taken unless asked for."""
_CURVES = {"loss": "loss", "margin": "margin", "chosen_change": "chosen_change", "rejected_change": "rejected_change"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactHead:
    """The two runs of one sample, and what of the displacement was foreseen."""

    trained: Trajectory
    """The whole head, exactly."""
    simulated: Trajectory
    """First order."""
    pairs: int
    why: str
    """How the sample came to its size."""
    first_step: RankCorrelation
    """Over the pairs: first step's push on the chosen log-probability, against its change by exact training."""
    ches: RankCorrelation
    """The same of minus CHES, so that 1 is a perfect order for both."""

    def curves(self) -> list[dict[str, Any]]:
        """One dictionary per group: both runs' means at the recorded steps."""
        found = []
        for name in dict.fromkeys(self.trained.table["group"].to_pylist()):
            row: dict[str, Any] = {"name": name}
            for label, run in (("exact", self.trained), ("first_order", self.simulated)):
                for quantity, column in _CURVES.items():
                    row[f"{label}_{quantity}"] = run.curve(column, group=name)[1]
            row["pairs"] = int(self.trained.final("pairs", group=name))
            found.append(row)
        return found

    def gap(self) -> dict[str, float]:
        """Largest distance between the two runs over groups and recorded steps, per quantity."""
        curves = self.curves()
        return {
            quantity: max(
                float(np.max(np.abs(np.asarray(row[f"exact_{quantity}"]) - np.asarray(row[f"first_order_{quantity}"]))))
                for row in curves
            )
            for quantity in _CURVES
        }

    def to_json(self) -> dict[str, Any]:
        """The `exact` part of summary.json."""
        steps = self.trained.curve("loss", group=self.curves()[0]["name"])[0]
        return {
            "pairs": self.pairs,
            "steps": self.trained.settings["steps"],
            "recorded": steps,
            "learning_rate": self.trained.settings["learning_rate"],
            "why": self.why,
            "groups": self.curves(),
            "gap": self.gap(),
        }

    def displacement_json(self) -> dict[str, Any]:
        """The `displacement` part of summary.json."""

        def shown(found: RankCorrelation) -> dict[str, Any]:
            return {"spearman": found.value, "low": found.low, "high": found.high, "p": found.p_value}

        return {
            "pairs": self.pairs,
            "first_step": shown(self.first_step),
            "ches": shown(self.ches),
            "against": "change of the chosen response's log-probability after "
            f"{self.trained.settings['steps']} steps of exact training",
        }


def affordable(feats: FeatureSet, *, steps: int, budget: float = BUDGET) -> int:
    """How many training pairs of average length can be trained on exactly within a budget; 0 if under `LEAST`.

    A step forms the logits of every response token twice and their gradient once: 6 V d operations per token.

    Raises:
        KeyError: The features do not know the model's size.
    """
    model = feats.provenance.model
    tokens = float(np.mean(feats.chosen_length.astype(np.int64) + feats.rejected_length))
    each = 6.0 * model["vocabulary"] * model["hidden_size"] * tokens * steps
    count = min(MOST, int(budget / each), int((~feats.held_out).sum()))
    return count if count >= min(LEAST, int((~feats.held_out).sum())) else 0


def exact_head(
    data: PreferenceDataset,
    model: Any,
    feats: FeatureSet,
    objective: Objective,
    *,
    pairs: int,
    why: str,
    learning_rate: float,
    steps: int,
    seed: int = 0,
    progress: bool = True,
    reading: Extraction,
) -> ExactHead:
    """Train the whole head on a sample of the training pairs, and simulate the same.

    Args:
        data: The pairs that the features were made of.
        model: Their model, as `extract` takes it.
        feats: Of kind `responses`.
        objective: Of the margin.
        pairs: Size of the sample, drawn alike from every group.
        why: How it came to be that.
        learning_rate: Of both runs.
        steps: Full-batch steps of both runs.
        seed: Of the sample.
        progress: Show bars on stderr where it is a terminal.
        reading: How `extract` read the model.

    Returns:
        Both runs.

    Raises:
        TrainingError: The loss is no longer finite.
    """
    from prefdyn.training.train import run_training  # a framework, which an audit of features does not need

    rows = sample_rows(feats, pairs, seed=seed)
    few = feats.select(rows)
    trained = run_training(
        data.select(ids=few.id),
        model,
        tune="last-layer",
        objective=objective,
        learning_rate=learning_rate,
        steps=steps,
        batch_size="full",
        precision="float32",
        probes=("drift",),
        reading=reading,
        eos=bool(feats.provenance.settings.get("eos", True)),
        save=False,
        progress=progress,
    )
    simulated = descent(few, objective, learning_rate=learning_rate, steps=steps, alone=False)
    order = {name: place for place, name in enumerate(trained.pairs.id.tolist())}
    places = np.asarray([order[name] for name in few.id.tolist()])
    moved = (trained.chosen - trained.pairs.ref_chosen)[places]
    pushes = pair_pushes(as_seen(few, objective), beta=objective.beta, learning_rate=learning_rate)
    pushed = displacement(few, pushes)
    unknown = np.full(len(few), math.nan)
    return ExactHead(
        trained=trained.trajectory,
        simulated=simulated,
        pairs=len(few),
        why=why,
        first_step=rank_correlation(unknown if pushed.chosen_push is None else pushed.chosen_push, moved, seed=seed),
        ches=rank_correlation(unknown if pushed.ches is None else -pushed.ches, moved, seed=seed),
    )


def sample_rows(feats: FeatureSet, pairs: int, *, seed: int = 0) -> np.ndarray:
    """Sorted rows of a sample of the training pairs: of every group alike, small groups whole."""
    train = [np.flatnonzero((feats.group == code) & ~feats.held_out) for code in range(len(feats.groups))]
    quota = shares([len(rows) for rows in train], pairs)
    kept = [
        stream(seed, "exact sample", name).permutation(rows)[:count]
        for name, rows, count in zip(feats.groups, train, quota, strict=True)
    ]
    return np.sort(np.concatenate(kept))


def shares(sizes: Sequence[int], total: int) -> list[int]:
    """How many to take of each, alike where they have as many, `total` in all or everything.

    Example:
        >>> shares([10, 2, 10], 12)
        [5, 2, 5]
    """
    found, left = [0] * len(sizes), min(total, sum(sizes))
    order = sorted(range(len(sizes)), key=lambda place: sizes[place])
    for done, place in enumerate(order):
        found[place] = min(sizes[place], left // (len(order) - done))
        left -= found[place]
    return found
