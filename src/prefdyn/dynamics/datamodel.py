r"""Is a derivative any good as a forecast? The linear datamodelling score (LDS), by running what was foretold.

Random subsets of the training pairs are left out, the run is made again without each (all in one solve), and the
foretold changes of a held-out number are compared with the true ones by rank correlation over the subsets. Beside the
exact derivative stands the first step's, which is what influence by kernel or gradient agreement amounts to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from prefdyn._checks import at_least, between
from prefdyn._random import stream
from prefdyn.dynamics.adjoint import HeadRun, Sensitivity, laid_out, one_setting, sensitivity_of
from prefdyn.dynamics.engine import Run, solve
from prefdyn.dynamics.grid import Setting
from prefdyn.dynamics.measure import Member, Outcome
from prefdyn.dynamics.order import spearman
from prefdyn.dynamics.problem import Pairs
from prefdyn.dynamics.targets import Targets, ended, targets
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet
from prefdyn.settings import opened

FORECASTS = ("exact", "first_step")
"""The derivative through the whole run, and that through its first step alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatamodelScore:
    """Rank correlation of foretold and re-simulated changes of T targets where a share of the pairs is left out."""

    share: float
    """Of the training pairs, left out."""
    subsets: int
    targets: tuple[str, ...]
    score: dict[str, Float[np.ndarray, " T"]]
    """Spearman's correlation over subsets per target, for each of `FORECASTS`; NaN where nothing varies."""
    spread: Float[np.ndarray, " T"]
    """Standard deviation of the true change over subsets: what there is to foretell."""

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per forecast: share, subsets, mean score over targets, and the lowest."""
        return [
            {
                "share": self.share,
                "subsets": self.subsets,
                "forecast": name,
                "targets": len(self.targets),
                "score": float(np.mean(values)),
                "lowest": float(np.min(values)),
            }
            for name, values in self.score.items()
        ]


@opened(run=HeadRun)
def lds(
    feats: FeatureSet,
    *,
    shares: Sequence[float] = (0.01, 0.1, 0.5),
    subsets: int = 100,
    draws: int = 0,
    of: Any = "groups",
    quantity: str = "loss",
    split: str = "held_out",
    run: HeadRun,
    progress: bool = False,
) -> list[DatamodelScore]:
    """The score of exact and first-step derivatives for leaving out random pairs.

    Args:
        feats: Features of either kind.
        shares: Shares of the training pairs to leave out, each in (0, 1).
        subsets: Random subsets per share, at least 3.
        draws: Seed of the subsets.
        of: Targets, as for `sensitivity`; all but "worst".
        quantity: As for `sensitivity`.
        split: As for `sensitivity`.
        run: How the head is trained, as for `sensitivity`, whose fields can be given as keywords. With minibatches a
            pair that is left out falls silent in its batch.
        progress: Show bars on stderr where it is a terminal.

    Returns:
        One score per share.

    Raises:
        ConfigError: A share or a setting is out of range.
        DataError: So few pairs that a share leaves out none.

    Reference:
        Park et al. (2023), "TRAK", arXiv:2303.14186, section 4.1, for the score; Ilyas et al. (2022),
        arXiv:2202.00622, for datamodels. Ours: subsets leave out a share in place of keeping a half.

    Example:
        >>> from prefdyn.synthetic import gaussian_groups
        >>> feats = gaussian_groups(80, groups=2, width=8, half_gap=[1.0, 0.5])
        >>> feats = feats.with_held_out(np.arange(len(feats)) % 4 == 0)
        >>> (found,) = lds(feats, shares=[0.1], subsets=20, steps=30)
        >>> bool(found.score["exact"].min() > 0.9)
        True
    """
    at_least(subsets, 3, name="subsets")
    setting, steps = one_setting(feats, run=run), run.steps
    asked: dict[str, Any] = {"of": of, "quantity": quantity, "split": split, "progress": progress}
    forecasts: dict[str, Sensitivity] = {
        "exact": sensitivity_of(feats, setting, steps, **asked),
        "first_step": sensitivity_of(feats, setting, 1, **asked),
    }
    wanted = targets(feats, of, quantity=quantity, split=split)
    found = []
    for share in shares:
        masks = _left_out(feats, between(share, 0.0, 1.0, name="share"), subsets, draws)
        ends = resimulated(feats, masks, wanted, setting, steps, progress=progress)
        changes = ends - forecasts["exact"].value[:, None]
        found.append(
            DatamodelScore(
                share=share,
                subsets=subsets,
                targets=wanted.names,
                score={
                    name: np.array([spearman(*each) for each in zip(how.dropped(masks), changes, strict=True)])
                    for name, how in forecasts.items()
                },
                spread=changes.std(axis=1),
            )
        )
    return found


def resimulated(
    feats: FeatureSet,
    masks: Bool[np.ndarray, "n subsets"],
    wanted: Targets,
    setting: Setting,
    steps: int,
    *,
    progress: bool = False,
) -> Float[np.ndarray, "T subsets"]:
    """The targets at the end of runs that each leave some pairs out, all in one solve.

    Args:
        feats: Features of either kind.
        masks: True for the training pairs to leave out, one column per run.
        wanted: The targets.
        setting: Of every run.
        steps: Of every run.
        progress: Show a bar on stderr where it is a terminal.
    """
    pairs, outcomes = reweighted(
        feats, setting, steps, 1.0 - masks, label="Runs without some pairs", progress=progress
    )  # fmt: skip
    return np.stack(
        [
            ended(wanted, setting.objective, pairs, outcome.margins[steps], outcome.chosen_changes.get(steps))
            for outcome in outcomes
        ],
        axis=1,
    )


def reweighted(
    feats: FeatureSet,
    setting: Setting,
    steps: int,
    factors: Float[np.ndarray, "n runs"],
    *,
    kept: Sequence[int] = (),
    label: str = "Runs",
    progress: bool = False,
) -> tuple[Pairs, list[Outcome]]:
    """Runs whose pairs' weights are multiplied by these factors, all in one solve; each keeps its last margins.

    Args:
        feats: Features of either kind; pairs that they hold out are not trained on.
        setting: Of every run.
        steps: Of every run.
        factors: Not below 0, one column per run.
        kept: Further steps at which margins are kept.
        label: Name of the bar.
        progress: Show it on stderr where it is a terminal.
    """
    count = factors.shape[1]
    route, pairs, drawn = laid_out(feats, setting, steps, dtype=feats.working_dtype, runs=count)
    run = Run(
        objective=setting.objective, learning_rate=setting.learning_rate, optimizer=setting.optimizer,
        schedule=setting.schedule, members=(Member(objective=setting.objective),),
    )  # fmt: skip
    outcomes = solve(
        route, pairs, [run] * count, steps=steps, recorded=[0], kept=sorted({*kept, steps}), batches=drawn,
        masks=factors, subset=range(count), head=feats.head, label=label, progress=progress,
    )  # fmt: skip
    return pairs, [outcome for (outcome,) in outcomes]


def _left_out(feats: FeatureSet, share: float, subsets: int, seed: int) -> Bool[np.ndarray, "n subsets"]:
    """Random subsets of the training pairs, all of one size."""
    trained = np.flatnonzero(~feats.held_out)
    count = round(share * len(trained))
    if not 0 < count < len(trained):
        raise DataError(
            f"a share of {share:g} of {len(trained)} training pairs leaves out {count}; give a share that leaves "
            "some out and some in"
        )
    rng = stream(seed, "datamodel", f"{share:g}")
    masks = np.zeros((len(feats), subsets), dtype=bool)
    for column in range(subsets):
        masks[rng.choice(trained, count, replace=False), column] = True
    return masks
