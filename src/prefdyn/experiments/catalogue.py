"""Every figure, table and experiment of the papers, and the one recipe that draws it."""

from dataclasses import dataclass
from typing import Literal

Sort = Literal["figure", "table", "fit", "experiment", "check"]
_SHORT = {"figure": "fig", "table": "table", "fit": "fit", "experiment": "experiment", "check": "check"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureSpec:
    """One figure, table or experiment of a paper."""

    paper: str
    """arXiv number."""
    sort: Sort
    number: int
    title: str
    recipe: str

    @property
    def id(self) -> str:
        """Name of its files.

        Example:
            >>> FigureSpec(paper="2403.18742", sort="figure", number=3, title="", recipe="").id
            '2403.18742-fig03'
        """
        return f"{self.paper}-{_SHORT[self.sort]}{self.number:02d}"

    @property
    def where(self) -> str:
        """Where it stands, for people.

        Example:
            >>> FigureSpec(paper="2408.03459", sort="table", number=1, title="", recipe="").where
            'Table 1'
        """
        return f"{self.sort.capitalize()} {self.number}"


_A, _B, _C = "2403.18742", "2408.03459", "2404.04626"
_BETAS = {17: "0.001", 18: "0.1", 19: "1"}
_PICTURES = {
    8: "average utilitarianism", 13: "average utilitarianism, other model", 14: "acausal trades, other model",
    20: "average utilitarianism, beta 0.001", 21: "average utilitarianism, beta 0.1",
    22: "average utilitarianism, beta 1", 23: "different goals", 24: "optionality", 25: "memory", 26: "Buddhism",
}  # fmt: skip


def _figure(paper: str, number: int, recipe: str, title: str, sort: Sort = "figure") -> FigureSpec:
    return FigureSpec(paper=paper, sort=sort, number=number, title=title, recipe=recipe)


CATALOGUE: tuple[FigureSpec, ...] = (
    _figure(_A, 1, "distinguishability", "Example statements"),
    _figure(_A, 2, "distribution-shift", "Final states of three behaviours"),
    _figure(_A, 3, "distinguishability", "Training loss, last layer"),
    _figure(_A, 4, "distinguishability", "Weight change, last layer"),
    _figure(_A, 5, "prioritization", "Two behaviours at once, last layer"),
    _figure(_A, 6, "distinguishability", "Training and test loss, whole model"),
    _figure(_A, 7, "prioritization", "Two behaviours at once, whole model"),
    _figure(_A, 9, "misalignment", "Flipped labels from base and aligned model"),
    _figure(_A, 10, "distinguishability", "Training loss, other model"),
    _figure(_A, 11, "misalignment", "Flipped labels, other model"),
    _figure(_A, 12, "prioritization", "Two behaviours at once, other model"),
    _figure(_A, 15, "misalignment", "Flipped labels on dialogues: loss"),
    _figure(_A, 16, "misalignment", "Flipped labels on dialogues: log-probabilities"),
    *(
        _figure(_A, number, "distinguishability", f"Training and test loss, beta {beta}")
        for number, beta in _BETAS.items()
    ),
    *(
        _figure(_A, number, "distribution-shift", f"States before and after: {what}")
        for number, what in _PICTURES.items()
    ),
    _figure(_A, 1, "distinguishability", "Distinguishability of random and of aligned labels", "experiment"),
    _figure(_A, 2, "distinguishability", "Weight change against distinguishability", "experiment"),
    _figure(_A, 3, "sft-versus-dpo", "Separability after DPO and after fine-tuning", "experiment"),
    _figure(_A, 1, "robustness-of-claims", "Wider range of model sizes", "check"),
    _figure(_A, 2, "misalignment", "Misalignment under adversarial training", "check"),
    _figure(_A, 3, "robustness-of-claims", "Data that is not independent", "check"),
    _figure(_B, 1, "value-scaling", "Illustration: statements and clusters of values"),
    _figure(_B, 2, "value-scaling", "Illustration: two values, four clusters"),
    _figure(_B, 3, "cluster-structure", "Cosines between ten personas"),
    _figure(_B, 4, "sample-complexity", "Samples per value that the bound asks for"),
    _figure(_B, 5, "value-scaling", "Reward margin by number of values"),
    _figure(_B, 6, "cluster-structure", "Cosines between all personas"),
    _figure(_B, 7, "value-scaling", "Loss by number of values"),
    _figure(_B, 8, "value-scaling", "Accuracy by number of values"),
    _figure(_B, 9, "value-scaling", "Reward margin, other model"),
    _figure(_B, 10, "value-scaling", "Loss, other model"),
    _figure(_B, 11, "value-scaling", "Accuracy, other model"),
    _figure(_B, 1, "value-scaling", "Test error and margin by number of values", "table"),
    _figure(_B, 2, "value-scaling", "Test error and margin, other model", "table"),
    _figure(_B, 1, "value-scaling", "Linear fit of test error to the number of values", "fit"),
    _figure(_B, 7, "objectives", "Other losses of the margin (section 7)", "experiment"),
    _figure(_C, 1, "gradient-field", "Loss and gradient field over two probability ratios"),
    _figure(_C, 1, "gradient-field", "DPO from three starts", "experiment"),
)
"""Figures 1 and 2 of 2408.03459 are illustrations there. Experiments and checks of 2403.18742 are those that its
summary proposes; those of 2408.03459 and 2404.04626 are what the text says and shows no figure of."""


def figures_of(recipe: str) -> tuple[FigureSpec, ...]:
    """What one recipe draws, in the order of the papers.

    Example:
        >>> [spec.id for spec in figures_of("gradient-field")]
        ['2404.04626-fig01', '2404.04626-experiment01']
    """
    return tuple(spec for spec in CATALOGUE if spec.recipe == recipe)


def spec_of(id: str) -> FigureSpec:
    """A figure by its id.

    Example:
        >>> spec_of("2408.03459-table02").recipe
        'value-scaling'
    """
    return next(spec for spec in CATALOGUE if spec.id == id)
