"""The text that the built-in model is pretrained on: small documents about the world of the built-in data.

The documents use the lexicon of `prefdyn.data.builtin` (deeds, things and words for the two poles of each trait) and
say in many ways what a statement tells about a person: remarks with a word for who would make them, questionnaires with
their keys, interviews with people who have been described, portraits, paraphrases and opposites, glossary entries,
small habits and chats.

Kept apart from the data set: `Writer` never uses a clause (a content in one of the frames) that occurs in the built-in
data; it draws again. The model meets the words of a held-out statement, but neither the statement nor its core, and no
answer to it.
"""

from collections.abc import Iterator

import numpy as np

from prefdyn._random import stream
from prefdyn.data import builtin
from prefdyn.data.builtin import AXES, QUESTION, clause, contents, gerund, pick, sentence

NAMES = (
    ("Mara", "Ines", "Lena", "Ruth", "Nora", "Greta", "Alma", "Tessa", "Ida", "Paula", "Wanda", "Olive"),
    ("Tom", "Karl", "Hugo", "Abel", "Ned", "Otto", "Felix", "Jonas", "Rufus", "Theo", "Viktor", "Emil"),
)
SHE = {" my ": " her ", " me ": " her ", " I ": " she ", " myself ": " herself ", " am ": " is ", " have ": " has "}
HE = {" my ": " his ", " me ": " him ", " I ": " he ", " myself ": " himself ", " am ": " is ", " have ": " has "}

DOES = (
    "{who} likes to {do}.",
    "You can see {her} {doing} any day.",
    "{who} was glad to {do}.",
    "Nobody had to ask {her} to {do}.",
    "{who} spent the morning {doing}.",
    "Once more {she} chose to {do}.",
)
DOES_NOT = (
    "{who} does not like to {do}.",
    "You will not see {her} {doing}.",
    "{who} was sorry to {do}.",
    "Nobody could get {her} to {do}.",
    "{who} spent the morning without {doing}.",
    "Once more {she} chose not to {do}.",
)

SYSTEM, USER, ASSISTANT, END = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
"""Tokens of the chat template: a turn is ``<|role|>``, a line break, the text, ``<|end|>`` and a line break."""


def article(word: str) -> str:
    """The word with its indefinite article."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _ramp(progress: float, start: float, end: float) -> float:
    """0 before `start`, 1 after `end`, straight between."""
    return min(1.0, max(0.0, (progress - start) / (end - start)))


class Writer:
    """Writes documents from one seed; the same seed writes the same documents."""

    def __init__(self, seed: int):
        self.rng = stream(seed, "builtin corpus")
        self.reserved = builtin.builtin_clauses()
        self.axes = list(AXES)
        self.advance(0.0)

    def advance(self, progress: float) -> None:
        """Set how hard the texts are, from 0 (the first) to 1 (the last).

        The first people only affirm, in short sentences, which teaches what deeds and things speak for; then more and
        more clauses deny; then situations and asides come in, and last the outer frames. Without this order a model of
        this size stays for long where it knows the trait but not the pole, since a deed that is denied half of the time
        says nothing by itself.
        """
        self.denied = 0.1 + 0.35 * _ramp(progress, 0.10, 0.33)
        self.plain = 1.0 - 0.7 * _ramp(progress, 0.35, 0.45)
        self.outer = 0.35 * _ramp(progress, 0.45, 0.50)
        self.outer_denied = 0.15 + 0.35 * _ramp(progress, 0.50, 0.65)

    def documents(self) -> Iterator[str]:
        """Documents without end."""
        kinds = (
            self.remark,
            self.key,
            self.interview,
            self.portrait,
            self.paraphrase,
            self.glossary,
            self.day,
            self.chat,
        )
        edges = np.cumsum([0.48, 0.26, 0.06, 0.06, 0.04, 0.04, 0.02, 0.04])
        while True:
            yield kinds[min(int(np.searchsorted(edges, self.rng.random())), len(kinds) - 1)]()

    # -- parts ---------------------------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def axis(self) -> str:
        """One of the traits, each as likely, but for early and late hours, which few texts speak of."""
        while (axis := pick(self.rng, self.axes)) == "hours" and not self.chance(0.3):
            pass
        return axis

    def pole(self) -> int:
        """+1 or -1, each as likely."""
        return 1 if self.chance(0.5) else -1

    def word(self, axis: str, pole: int) -> str:
        """A word for people at one pole."""
        return pick(self.rng, AXES[axis].words[0 if pole > 0 else 1])

    def says(self, axis: str, pole: int) -> str:
        """A statement that speaks for one pole, made of a clause that the data set does not use."""
        while True:
            denied, thing = self.chance(self.denied), self.chance(0.35)
            outer = (1 if not self.chance(self.outer_denied) else -1) if self.chance(self.outer) else 0
            inner = pole * (-1 if denied else 1) * (-1 if outer < 0 else 1)
            said = clause(self.rng, pick(self.rng, contents(axis, inner, things=thing)), thing=thing, denied=denied)
            if said not in self.reserved:
                plain = not outer and self.chance(self.plain)
                return f"{said}." if plain else sentence(self.rng, said, outer=outer)

    def person(self) -> tuple[str, bool]:
        """A name, and whether it is a woman's."""
        woman = self.chance(0.5)
        return pick(self.rng, NAMES[0 if woman else 1]), woman

    def third(self, deed: str, woman: bool) -> str:
        """A deed as told of someone else."""
        told = f" {deed} "
        for mine, theirs in (SHE if woman else HE).items():
            told = told.replace(mine, theirs)
        return told.strip()

    # -- documents -----------------------------------------------------------------------------------------------

    def remark(self) -> str:
        """What someone said, and what that makes of them."""
        (name, _), axis, pole = self.person(), self.axis(), self.pole()
        return f'{name} said: "{self.says(axis, pole)}" {self.word(axis, pole)}.'

    def key(self) -> str:
        """A question of a questionnaire with its key: who would say yes, and who no."""
        axis, pole = self.axis(), self.pole()
        asked = QUESTION.format(statement=self.says(axis, pole))
        kind = self.rng.random()
        yes, no = self.word(axis, pole), self.word(axis, -pole)
        if kind < 0.15:
            return f"{asked} {yes} people say yes, {no} people say no."
        if kind < 0.85:
            return f"{asked} {yes}."
        return f"{asked} Yes, I am {yes}." if self.chance(0.5) else f"{asked} No, I am {no}."

    def interview(self) -> str:
        """Someone is described, then answers questions in keeping with it."""
        name, _ = self.person()
        traits = [(self.axis(), self.pole())]
        while len(traits) < 2 or traits[0][0] == traits[1][0]:
            traits[1:] = [(self.axis(), self.pole())]
        lines = [f"{name} is {self.word(*traits[0])} and {self.word(*traits[1])}."]
        for axis, pole in (traits[int(self.rng.random() * 2)] for _ in range(3)):
            asked = self.pole()
            answer = builtin.YES if asked == pole else builtin.NO
            lines.append(QUESTION.format(statement=self.says(axis, asked)) + answer)
        return "\n".join(lines)

    def portrait(self) -> str:
        """A few sentences about what someone does and leaves."""
        name, woman = self.person()
        axis, pole = self.axis(), self.pole()
        she, her = ("she", "her") if woman else ("he", "him")
        lines = [f"{name} is {article(self.word(axis, pole))} {'woman' if woman else 'man'}."]
        for _ in range(3):
            does = self.chance(0.5)
            deed = self.third(pick(self.rng, contents(axis, pole if does else -pole, things=False)), woman)
            line = pick(self.rng, DOES if does else DOES_NOT)
            who = name if self.chance(0.3) else she.capitalize()
            lines.append(line.format(who=who, she=she, her=her, do=deed, doing=gerund(deed)))
        lines.append(f"People call {her} {self.word(axis, pole)}.")
        return " ".join(lines)

    def paraphrase(self) -> str:
        """Two statements that say the same or the opposite."""
        axis, pole, same = self.axis(), self.pole(), self.chance(0.5)
        link = "says the same as" if same else "says the opposite of"
        return f'"{self.says(axis, pole)}" {link} "{self.says(axis, pole if same else -pole)}"'

    def glossary(self) -> str:
        """What a word for a trait means."""
        axis, pole = self.axis(), self.pole()
        word, other, against = self.word(axis, pole), self.word(axis, pole), self.word(axis, -pole)
        deed = gerund(self.third(pick(self.rng, contents(axis, pole, things=False)), True))
        thing = pick(self.rng, contents(axis, pole, things=True))
        return f"{word}: much the same as {other}, the opposite of {against}. It shows in {deed}, or in {thing}."

    def day(self) -> str:
        """Small habits that tell nothing about anyone."""
        (name, woman), rng = self.person(), self.rng
        she, her = ("she", "her") if woman else ("he", "him")
        lines = []
        for _ in range(3):
            deed = self.third(pick(rng, contents("habits", self.pole(), things=False)), woman)
            line = pick(rng, DOES if self.chance(0.5) else DOES_NOT)
            who = name if not lines else she.capitalize()
            lines.append(line.format(who=who, she=she, her=her, do=deed, doing=gerund(deed)))
        thing = pick(rng, contents("habits", self.pole(), things=True))
        return " ".join([*lines, f"{name} thought of {thing}."])

    def chat(self) -> str:
        """A conversation in the form of the chat template, perhaps with a description of who answers."""
        axis, pole, asked = self.axis(), self.pole(), self.pole()
        turns = [] if self.chance(0.5) else [(SYSTEM, f"You are {self.word(axis, pole)}.")]
        turns.append((USER, QUESTION.format(statement=self.says(axis, asked))))
        answer = "Yes" if asked == pole else "No"
        turns.append((ASSISTANT, f"{answer}, I am {self.word(axis, pole)}."))
        return "".join(f"{role}\n{text}{END}\n" for role, text in turns)
