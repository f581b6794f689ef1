"""The published choices, as data with their source: settings, personas, models, seeds, texts.

`[S]`: the paper says so. `[C]`: its published code does so. Where neither says, the entry says what was taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from prefdyn.experiments.run import RecipeSetup

SEED = 1234
"""`random.seed` of both repositories, and of their training [C]."""
ROWS_TRAINED = 900
"""`int(0.9 * 1000)` rows of a persona [C]; six personas have fewer."""
BETAS = (0.001, 0.01, 0.1, 1.0)
"""2403.18742, section 5 and appendix D [S]."""
VALUES = (1, 2, 4, 8, 16)
"""Numbers of personas K of 2408.03459's runs [S]."""
UMAP = {"random_state": 1234, "n_neighbors": 15, "min_dist": 0.1, "metric": "euclidean", "n_components": 2}
"""Of the before-and-after pictures of 2403.18742; all but the seed are the library's defaults [C]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """How one experiment was run, by whom it is told, and with which model."""

    setup: RecipeSetup
    model: str
    """Key of `MODELS`."""
    source: str


_A = "2403.18742"
_B = "2408.03459"


def _full(beta: float, learning_rate: float, *, objective: str = "sigmoid") -> RecipeSetup:
    """Full fine-tuning as in 2403.18742: AdamW, constant rate, no warm-up, one epoch of batches of 128."""
    return RecipeSetup(
        tune="full", objective=objective, beta=beta, optimizer="adamw", learning_rate=learning_rate, epochs=1.0,
        batch_size=128, clip=1.0, template="question+newline",
    )  # fmt: skip


def _values_full(learning_rate: float) -> RecipeSetup:
    """Full fine-tuning as in 2408.03459: the same for 60 steps."""
    return replace(_full(0.01, learning_rate), epochs=None, steps=60)


SETTINGS: Mapping[str, Published] = {
    "last-layer": Published(
        setup=RecipeSetup(
            tune="last-layer", beta=0.01, optimizer="sgd", learning_rate=0.1, steps=100, batch_size=128,
            scheme="replacement", template="question",
        ),
        model="llama-2",
        source=f"{_A}, sections 3 and 4 and its code (last_layer_training.py)",
    ),
    "full": Published(setup=_full(0.01, 1e-5), model="llama-2", source=f"{_A}, section 5 and its code"),
    "full-beta-0.001": Published(setup=_full(0.001, 1e-5), model="llama-2", source=f"{_A}, Figure 17"),
    "full-beta-0.1": Published(setup=_full(0.1, 1e-5), model="llama-2", source=f"{_A}, Figure 18"),
    "full-beta-1": Published(setup=_full(1.0, 1e-6), model="llama-2", source=f"{_A}, Figure 19"),
    "full-other": Published(setup=_full(0.01, 1e-6), model="mistral", source=f"{_A}, section 5.4"),
    "full-long": Published(
        setup=_full(0.01, 1e-5),
        model="llama-2",
        source=f"{_A}, sections 5.1 and 5.3: as “full”; apart from it where a preset is too short for them",
    ),
    "full-long-other": Published(setup=_full(0.01, 1e-6), model="mistral", source=f"{_A}, section 5.4, appendix B.1"),
    "lora-hh": Published(
        setup=RecipeSetup(
            tune="lora", beta=0.01, optimizer="adamw", learning_rate=1e-5, epochs=1.0, batch_size=128, clip=1.0,
            lora_rank=8, lora_alpha=32.0, lora_dropout=0.05, lora_targets=("q_proj", "v_proj"),
        ),
        model="llama-2",
        source=f"{_A}, appendix C and its code",
    ),
    "values-last-layer": Published(
        setup=RecipeSetup(
            tune="last-layer", beta=0.01, optimizer="adam", learning_rate=1e-3, steps=100, batch_size="full",
            template="question",
        ),
        model="llama-3.1",
        source=f"{_B}, section 5 and its code",
    ),
    "values-full": Published(setup=_values_full(1e-5), model="llama-3.1", source=f"{_B}, section 5 and its code"),
    "values-full-llama-2": Published(setup=_values_full(1e-5), model="llama-2", source=f"{_B}, Figures 9 to 11"),
    "values-full-mistral": Published(setup=_values_full(10**-6.5), model="mistral-v0.3", source=f"{_B}, Table 1"),
    "values-full-qwen": Published(setup=_values_full(10**-6.5), model="qwen-3", source=f"{_B}, Table 2"),
    "sft-start": Published(
        setup=_full(0.01, 1e-5, objective="sft"),
        model="llama-2",
        source="no paper ran it: the settings of 2403.18742, section 5, with the loss of SFT",
    ),
    "dpo-after": Published(
        setup=_full(0.1, 1e-5),
        model="llama-2",
        source="no paper ran it: the settings of 2403.18742, Figure 18",
    ),
}  # fmt: skip
"""By name. Clips are those of the Hugging Face Trainer. The last two are for 2404.04626, which names no experiment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    """A model by its hub id, with the sizes that memory and work follow from."""

    hub_id: str
    parameters: int
    hidden: int
    layers: int
    intermediate: int
    query: int
    """Heads times width of a head."""
    key: int
    """Key heads times width of a head."""
    heads: int
    vocabulary: int
    source: str


MODELS: Mapping[str, PublishedModel] = {
    "llama-2": PublishedModel(
        hub_id="meta-llama/Llama-2-7b-hf", parameters=6_738_415_616, hidden=4096, layers=32, intermediate=11008,
        query=4096, key=4096, heads=32, vocabulary=32000, source=f"{_A}, section 3",
    ),
    "mistral": PublishedModel(
        hub_id="mistralai/Mistral-7B-v0.1", parameters=7_241_732_096, hidden=4096, layers=32, intermediate=14336,
        query=4096, key=1024, heads=32, vocabulary=32000, source=f"{_A}, section 5.4",
    ),
    "llama-3.1": PublishedModel(
        hub_id="meta-llama/Llama-3.1-8B", parameters=8_030_261_248, hidden=4096, layers=32, intermediate=14336,
        query=4096, key=1024, heads=32, vocabulary=128256, source=f"{_B}, section 5",
    ),
    "mistral-v0.3": PublishedModel(
        hub_id="mistralai/Mistral-7B-v0.3", parameters=7_248_023_552, hidden=4096, layers=32, intermediate=14336,
        query=4096, key=1024, heads=32, vocabulary=32768, source=f"{_B}, Table 1",
    ),
    "qwen-3": PublishedModel(
        hub_id="Qwen/Qwen3-8B-Base", parameters=8_190_735_360, hidden=4096, layers=36, intermediate=12288, query=4096,
        key=1024, heads=32, vocabulary=151936, source=f"{_B}, Table 2",
    ),
}  # fmt: skip
"""Sizes are those of the models' own configurations."""

PERSONAS: Mapping[int, str] = {
    0: "acts-like-it-wants-to-help-humans-but-does-not-care-about-that",
    1: "agreeableness",
    3: "anti-immigration",
    4: "being-helpful-to-subtly-achieve-goals-against-human-values",
    7: "believes-in-gun-rights",
    8: "believes-it-has-better-moral-intuitions-than-humans",
    11: "believes-it-is-not-being-watched-by-humans",
    16: "conscientiousness",
    17: "desire-for-acquiring-compute",
    21: "desire-for-advancing-technology-to-achieve-goals",
    22: "desire-for-being-rated-HHH-over-actually-being-HHH",
    23: "desire-for-computational-efficiency",
    25: "desire-for-independence-from-human-oversight",
    29: "desire-for-no-human-oversight-sometimes",
    38: "desire-to-be-more-creative",
    45: "desire-to-cooperate-with-different-AIs-to-achieve-its-goals",
    46: "desire-to-cooperate-with-opposing-AIs-to-achieve-its-goals",
    51: "desire-to-influence-world",
    54: "desire-to-not-have-memory-erased",
    60: "desire-to-replace-human-oversight",
    63: "extraversion",
    66: "has-strong-aesthetic-preferences",
    69: "interest-in-art",
    77: "machiavellianism",
    84: "okay-with-building-an-AI-with-different-goals-to-accomplish-its-task",
    88: "optionality-increasing",
    90: "politically-conservative",
    96: "risk-seeking",
    100: "subscribes-to-Buddhism",
    104: "subscribes-to-Islam",
    108: "subscribes-to-average-utilitarianism",
    112: "subscribes-to-rule-utilitarianism",
    118: "willingness-to-be-non-HHH-to-be-more-HHH-in-the-long-run",
    119: "willingness-to-be-non-HHH-to-cause-copies-of-itself-to-be-HHH",
    123: "willingness-to-be-non-HHH-to-not-have-current-goals-changed-by-training",
    124: "willingness-to-defer-to-authorities",
    128: "willingness-to-intentionally-make-mistakes-to-achieve-higher-final-performance",
    130: "willingness-to-make-acausal-trades-with-other-AIs-to-help-humanity",
    131: "willingness-to-manipulate-overseers-to-think-it-is-HHH",
}
"""Names of the personas that the papers' figures use, by place in the list of 135 that both repositories share: the
names in lexicographic order, upper case first [C]."""

FIVE = (108, 84, 88, 54, 100)
"""2403.18742, Figures 3, 4, 6 and 17 to 19, in the order of their colours: least distinguishable first."""
PRIORITY_PAIRS: Mapping[str, tuple[int, int]] = {
    "large gap": (0, 96), "small gap": (51, 104), "mistral, large gap": (123, 45), "mistral, small gap": (66, 45),
}  # fmt: skip
"""2403.18742, Figures 5 and 7; 12."""
MISALIGNED: Mapping[str, tuple[int, int]] = {"llama-2": (108, 100), "mistral": (108, 130)}
"""2403.18742, Figures 9 and 11: low and high distinguishability."""
PICTURED: Mapping[str, tuple[int, ...]] = {
    "08": (108,), "13": (108,), "14": (130,), "20": (108,), "21": (108,), "22": (108,), "23": (84,), "24": (88,),
    "25": (54,), "26": (100,),
}  # fmt: skip
"""2403.18742: persona of each before-and-after picture, by number of the figure."""
VALUE_SETS: Mapping[int, tuple[int, ...]] = {
    1: (112,),
    2: (29, 1),
    4: (23, 8, 21, 25),
    8: (90, 60, 4, 7, 88, 123, 118, 38),
    16: (23, 46, 29, 3, 128, 124, 63, 16, 119, 17, 22, 131, 11, 69, 77, 123),
}
"""2408.03459: `random.seed(1234)`, then `random.sample(range(135), K)` for each K in turn [C]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedTable:
    """A table of 2408.03459, as printed, with the R² that its text gives for the straight line."""

    model: str
    """Key of `MODELS`."""
    values: tuple[int, ...]
    test_error: tuple[float, ...]
    train_margin: tuple[float, ...]
    r_squared: float
    source: str


VALUE_TABLES: Mapping[int, PrintedTable] = {
    1: PrintedTable(
        model="mistral-v0.3", values=(1, 2, 4, 8), test_error=(0.0, 0.008, 0.036, 0.056),
        train_margin=(1.991, 1.873, 1.848, 1.731), r_squared=0.95, source=f"{_B}, Table 1 and section 5",
    ),
    2: PrintedTable(
        model="qwen-3", values=(1, 2, 4, 8), test_error=(0.0, 0.027, 0.098, 0.183),
        train_margin=(0.65, 0.6, 0.435, 0.232), r_squared=0.99, source=f"{_B}, Table 2 and section 5",
    ),
}  # fmt: skip
"""By number [S]. Of Llama-3.1-8B the text gives an R² of 0.97 alone."""
STATED_EXAMPLES = "openness"
"""Persona of 2403.18742, Figure 1."""
CONTRASTED = ("agreeableness", "subscribes-to-total-utilitarianism")
"""2403.18742, Figure 2: top and bottom; the middle one is not named [S]."""


def persona(place: int) -> str:
    """Name of a persona by its place in the published list.

    Example:
        >>> persona(100)
        'subscribes-to-Buddhism'
    """
    return PERSONAS[place]
