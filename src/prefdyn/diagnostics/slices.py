"""Exploratory groups of data that has none: by length, turns and topic, and whether one is learned unlike the rest.

Nobody asked about these slices beforehand and there are many, so p-values are adjusted for all of them at once, and
what is found is a place to look at, not a result. What is compared is the share of held-out pairs that are right, whose
chance is one half in every slice; losses would differ by the size of features alone. No slice is cut by anything that a
label decides, such as which side is longer: whatever a run learned by chance would differ there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from prefdyn._json import plain
from prefdyn._random import stream
from prefdyn._showing import Tabular
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.features import FeatureSet
from prefdyn.maths.units import Z95, mean_of, sums

LEAST = 20
"""Units of the smallest slice, and of the smallest rest."""
MOST_TOPICS = 6
_PER_TOPIC = 120
"""Units for each topic that is looked for."""
_AXES = 16
"""Principal axes of the states in which topics are looked for."""
_STARTS, _ROUNDS = 4, 50
"""Of the search for topics: how often it is begun, and its most rounds."""
_DRAWS = 2000
_WORDS = 5
"""Telling words of a topic."""
_TELLING = 3.0
"""Standard errors by which a word must be more frequent in a topic than elsewhere."""
_LONGEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One exploratory group. Intervals are of 95 %, over units."""

    kind: str
    """What it is made by: length, difference, turns or topic."""
    name: str
    pairs: int
    units: int
    accuracy: float
    """Share of its pairs that are right in runs that did not train on them."""
    accuracy_low: float
    accuracy_high: float
    rest: float
    """The same of all other pairs."""
    difference: float
    difference_low: float
    difference_high: float
    """Interval of this slice alone, not adjusted."""
    p: float
    """Adjusted for all slices: the share of drawings in which any slice differs as much."""
    words: tuple[str, ...] = ()
    """Words that tell a topic from the rest, the most telling first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices(Tabular):
    """What was found in exploratory groups, those that differ most first."""

    slices: tuple[Slice, ...]
    members: Bool[np.ndarray, "slices n"]
    """Which pairs are in each."""

    def rows(self) -> list[dict[str, object]]:
        """One dictionary per slice."""
        return [plain({name: getattr(each, name) for name in Slice.__dataclass_fields__}) for each in self.slices]

    def names(self) -> list[list[str]]:
        """The slices that each pair is in."""
        return [
            [f"{self.slices[code].kind}: {self.slices[code].name}" for code in np.flatnonzero(inside)]
            for inside in self.members.T
        ]


def slices(
    data: PreferenceDataset | None,
    feats: FeatureSet,
    right: Float[np.ndarray, " n"],
    unit: Int[np.ndarray, " n"],
    *,
    seed: int = 0,
) -> Slices | None:
    """Slices of one group's pairs, and in which of them held-out pairs are right more or less often than in the rest.

    Args:
        data: The pairs, for turns and telling words; without it there are only lengths and topics without words.
        feats: Features of the same pairs in the same order.
        right: 1 where a pair is right in a run that did not train on it, 0 where it is wrong, NaN where not known.
        unit: Equal integers for pairs that hang together.
        seed: Of topics and of the drawings.

    Returns:
        The slices, or None where no slice has enough units.

    Reference:
        Wild bootstrap with signs drawn by unit (Cameron, Gelbach and Miller 2008) for the largest of all statistics
        (Romano and Wolf 2005). Telling words: log-odds with a prior of all words (Monroe et al. 2008).
    """
    known = np.isfinite(right)
    found = [each for each in _cut(data, feats, unit, seed) if _fits(each[2], unit, known)]
    if not found:
        return None
    inside = np.stack([rows for _, _, rows, _ in found])
    effects, p = adjusted(right, unit, inside, seed=seed)
    made = []
    for (kind, name, rows, words), (difference, error), tail in zip(found, effects, p, strict=True):
        mean, rest = mean_of(right[rows], unit[rows]), mean_of(right[~rows], unit[~rows])
        made.append(
            Slice(
                kind=kind, name=name, pairs=int(rows.sum()), units=mean.units, accuracy=mean.value,
                accuracy_low=max(0.0, mean.value - Z95 * mean.error),
                accuracy_high=min(1.0, mean.value + Z95 * mean.error), rest=rest.value, difference=difference,
                difference_low=difference - Z95 * error, difference_high=difference + Z95 * error,
                p=tail, words=words,
            )
        )  # fmt: skip
    order = np.argsort([each.p for each in made], kind="stable")
    return Slices(slices=tuple(made[at] for at in order), members=inside[order])


def adjusted(
    right: Float[np.ndarray, " n"],
    unit: Int[np.ndarray, " n"],
    inside: Bool[np.ndarray, "slices n"],
    *,
    draws: int = _DRAWS,
    seed: int = 0,
) -> tuple[list[tuple[float, float]], np.ndarray]:
    """Difference of each slice's mean from the rest's with its error over units, and p-values for all at once.

    Args:
        right: One number per pair; NaN where it is not known.
        unit: Equal integers for pairs that hang together.
        inside: Which pairs are in each slice.
        draws: Drawings of signs.
        seed: Of the drawings.

    Returns:
        (difference, standard error) of each slice, and its adjusted p-value.

    Example:
        >>> right = np.tile([0.0, 1.0], 50)
        >>> effects, p = adjusted(right, np.arange(100), np.arange(100)[None] < 40)
        >>> abs(effects[0][0]) < 1e-9, bool(p[0] > 0.5)
        (True, True)
    """
    known = np.isfinite(right)
    values, inside, (_, code) = right[known], inside[:, known], np.unique(unit[known], return_inverse=True)
    size = inside.sum(axis=1)
    contrast = inside / size[:, None] - ~inside / (len(values) - size)[:, None]
    difference = contrast @ values
    fitted = np.where(inside, (inside @ values / size)[:, None], (~inside @ values / (len(values) - size))[:, None])
    count = int(code.max()) + 1
    own = sums((contrast * (values - fitted)).T, code, count)
    error = np.sqrt(count / (count - 1) * (own**2).sum(axis=0))
    null = sums((contrast * (values - values.mean())).T, code, count)
    scale = np.sqrt(count / (count - 1) * (null**2).sum(axis=0))
    ratio = np.abs(np.divide(difference, scale, out=np.zeros_like(difference), where=scale > 0))
    rng, largest = stream(seed, "slices", "signs"), np.empty(draws)
    for start in range(0, draws, 200):
        signs = rng.integers(0, 2, size=(min(200, draws - start), count)) * 2.0 - 1.0
        drawn = np.abs(signs @ null)
        drawn = np.divide(drawn, scale, out=np.zeros_like(drawn), where=scale > 0)
        largest[start : start + len(signs)] = drawn.max(axis=1)
    p = (1 + (largest[None] >= ratio[:, None] - 1e-12).sum(axis=1)) / (1 + draws)
    return list(zip(difference.tolist(), error.tolist(), strict=True)), p


# how pairs are cut ---------------------------------------------------------------------------------------------------

_Cut = tuple[str, str, np.ndarray, tuple[str, ...]]


def _fits(rows: np.ndarray, unit: np.ndarray, known: np.ndarray) -> bool:
    """Whether a slice and its rest have enough units."""
    return all(len(np.unique(unit[part & known])) >= LEAST for part in (rows, ~rows))


def _cut(data: PreferenceDataset | None, feats: FeatureSet, unit: np.ndarray, seed: int) -> list[_Cut]:
    found: list[_Cut] = []
    long = feats.kind == "responses"
    if long:
        chosen, rejected = (getattr(feats, f"{side}_length").astype(np.int64) for side in ("chosen", "rejected"))
        found += _thirds("length", chosen + rejected, "both responses together {} tokens")
        found += _thirds("difference", np.abs(chosen - rejected), "lengths differ by {} tokens")
    elif data is not None:
        sizes = np.array([len(text or "") for text in data.table["prompt"].to_pylist()])
        found += _thirds("length", sizes, "prompt {} characters")
    if data is not None:
        found += _by_turns(data)
    return found + _by_topic(data, feats, unit, seed)


def _thirds(kind: str, size: np.ndarray, says: str) -> list[_Cut]:
    """Thirds by size, as far as sizes differ."""
    low, high = np.quantile(size, [1 / 3, 2 / 3], method="lower").tolist()
    parts = {
        f"at most {low:,}": size <= low, f"{low + 1:,} to {high:,}": (size > low) & (size <= high),
        f"over {high:,}": size > high,
    }  # fmt: skip
    return [(kind, says.format(words), rows, ()) for words, rows in parts.items()]


def _by_turns(data: PreferenceDataset) -> list[_Cut]:
    """Conversations by how often the user speaks."""
    turns = np.array(
        [0 if talk is None else sum(each["role"] == "user" for each in talk["prompt"]) for talk in data.conversations]
    )
    if not turns.any():
        return []
    names = {1: "one question", 2: "two questions", _LONGEST: "three and more questions"}
    return [
        ("turns", name, (turns >= _LONGEST) if many == _LONGEST else turns == many, ()) for many, name in names.items()
    ]


def _by_topic(data: PreferenceDataset | None, feats: FeatureSet, unit: np.ndarray, seed: int) -> list[_Cut]:
    """Clusters of the states in their first principal axes, and the words that tell each."""
    states = feats.states
    if feats.kind == "responses" and states is not None:  # what both sides share, so that no label decides a topic
        states = None if feats.chosen_states is None else feats.chosen_states - states / 2
    count = min(MOST_TOPICS, len(np.unique(unit)) // _PER_TOPIC)
    if states is None or count < 2:
        return []
    from sklearn.cluster import KMeans  # a slow import, for data of one group alone

    whole = np.asarray(states, dtype=np.float64)
    centred = whole - whole.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    places = centred @ axes[:, -_AXES:]
    state = int(stream(seed, "slices", "topics").integers(2**31))
    reader = KMeans(count, n_init=_STARTS, max_iter=_ROUNDS, random_state=state)  # pyright: ignore[reportArgumentType]
    label = reader.fit_predict(places)
    words = [()] * count if data is None else telling_words(_texts(data), label, unit)
    order = np.argsort(-np.bincount(label, minlength=count), kind="stable").tolist()
    return [
        ("topic", ", ".join(words[code]) or f"cluster {place}", label == code, words[code])
        for place, code in enumerate(order, start=1)
    ]


def _texts(data: PreferenceDataset) -> list[str]:
    sides = ("prompt", "chosen", "rejected")
    return [" ".join(row[side] or "" for side in sides) for row in data.table.select(list(sides)).to_pylist()]


def telling_words(
    texts: Sequence[str], label: Int[np.ndarray, " n"], unit: Int[np.ndarray, " n"], *, most: int = _WORDS
) -> list[tuple[str, ...]]:
    """Words that occur in more texts of a class than of the others, by the log-odds in units of their error.

    A word counts once per unit and class, and only where it is in at least five units.

    Example:
        >>> texts = ["red apple"] * 30 + ["green pear"] * 30
        >>> telling_words(texts, np.repeat([0, 1], 30), np.arange(60), most=1)
        [('apple',), ('green',)]
    """
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import CountVectorizer

    from prefdyn.diagnostics.wording import TOKEN

    reader: Any = CountVectorizer(token_pattern=TOKEN, binary=True, lowercase=True, min_df=1)
    try:
        counts = reader.fit_transform(texts)
    except ValueError:  # not one word
        return [()] * (int(label.max()) + 1)
    names = reader.get_feature_names_out()
    first = np.unique(np.stack([unit, label], axis=1), axis=0, return_index=True)[1]  # a unit speaks once in a class
    counts, label = csr_array(counts)[first], label[first]
    every = np.asarray(counts.sum(axis=0)).ravel().astype(float)
    common = np.flatnonzero(every >= 5)
    names, counts, every = names[common], counts[:, common], every[common]
    found: list[tuple[str, ...]] = []
    for code in range(int(label.max()) + 1):
        here = np.asarray(counts[label == code].sum(axis=0)).ravel().astype(float)
        size, others = float((label == code).sum()), float((label != code).sum())
        there, prior = every - here, every / len(label)
        odds = np.log((here + prior) / (size - here + 1 - prior + 1e-9))
        odds -= np.log((there + prior) / (others - there + 1 - prior + 1e-9))
        z = odds / np.sqrt(1 / (here + prior) + 1 / (there + prior))
        best = [at for at in np.argsort(-z, kind="stable")[:most].tolist() if z[at] > _TELLING]
        found.append(tuple(str(names[at]) for at in best))
    return found


def said(found: Sequence[Mapping[str, object]], level: float = 0.05) -> str:
    """What slices say, in a sentence; from the rows of `Slices.rows`.

    Example:
        >>> said([{"kind": "turns", "name": "one question", "p": 0.01, "accuracy": 0.5, "rest": 0.625}])[:72]
        'Of 1 exploratory slice, 1 differs from the rest in how often held-out pa'
    """
    count = f"{len(found)} exploratory slice{'' if len(found) == 1 else 's'}"
    told = [row for row in found if float(str(row["p"])) <= level]
    if not told:
        none = f"None of {count} differs from the rest in how often held-out pairs are right"
        return f"{none} (adjusted p above {level:g})."
    parts = [
        f"{row['kind']} “{row['name']}” {float(str(row['accuracy'])):.2f} against {float(str(row['rest'])):.2f}"
        for row in told[:3]
    ]
    return (
        f"Of {count}, {len(told)} differ{'s' if len(told) == 1 else ''} from the rest in how often held-out pairs are "
        f"right (adjusted p at most {level:g}): {'; '.join(parts)}. Nobody had asked about them: look, and test anew."
    )
