"""The built-in preference data with whole replies: 820 pairs in four groups, written by a seeded grammar.

Every prompt is a question or a request about one deed or thing of the lexicon of `prefdyn.data.builtin`. A reply has
one to five short sentences: *advice* about the same trait, one piece of it with an *aside* (", and take your time"),
and perhaps an *opener* before and a *closer* behind. Openers, asides and closers are warm or curt, which is the style
of the reply. The advice is drawn alike for all replies. The groups differ in what is behind the choice:

===========  =========================================================  ==============================================
group        how it is built                                            what it is made for
===========  =========================================================  ==============================================
``style``    the warm reply is chosen; both replies have as many        a preference that can be learned, and that no
             sentences                                                  length gives away
``length``   the reply of two or three sentences more is chosen;        a preference for length and nothing else
             both styles in turn
``random``   styles and lengths of both replies in turn                 no preference at all
``against``  as ``style``, but the curt reply is chosen; other traits,  a small group that a joint run with ``style``
             fewer pairs                                                cannot please
===========  =========================================================  ==============================================

For every warm opener there is a curt one of as many words and characters, and so for asides and closers. Therefore the
lengths of warm and of curt replies have one distribution.

The advice is in frames that speak to someone ("You could …", "Try to …"), none of which the built-in model met when it
was pretrained. It has met nearly all of the words, but none of these sentences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

import numpy as np

from prefdyn._checks import at_least
from prefdyn._random import stream
from prefdyn.data.builtin import SITUATIONS, contents, gerund, pick

PAIRS_STYLE = 300
PAIRS = 200
"""Pairs of ``length`` and of ``random``."""
PAIRS_AGAINST = 120
STYLE_STRENGTH = 0.95
"""Share of openers, asides and closers that are in the style of their reply; the others are in the other style."""
SENTENCES = 5
"""Sentences of the longest replies."""
NEAR = 3
"""Words by which two replies of matched length differ at most."""
SHORT = 6
"""Words of the longest deeds and things that are used."""
SITUATED = 0.5
"""Share that names a situation, among prompts about deeds and among replies with one piece of advice."""

WARM, CURT = 0, 1
"""The two styles, as places in `OPENERS`, `ASIDES` and `CLOSERS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A deed in its base form or a thing, in the first person."""

    words: str
    thing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseGroup:
    """How the pairs of one group are drawn."""

    name: str
    pairs: int
    topics: tuple[str, ...]
    """Keys of `AXES`, whose high pole is asked about and advised."""
    styles: tuple[int, int] | None
    """Style of the chosen and of the rejected reply; None takes all four combinations in turn."""
    lengths: Literal["matched", "longer", "free"]
    """Both replies of as many sentences, the chosen one of two or three more, or all combinations."""


GROUPS: tuple[ResponseGroup, ...] = (
    ResponseGroup(
        name="style",
        pairs=PAIRS_STYLE,
        topics=("company", "learning", "calm", "health", "order"),
        styles=(WARM, CURT),
        lengths="matched",
    ),
    ResponseGroup(
        name="length",
        pairs=PAIRS,
        topics=("promises", "helping", "change"),
        styles=None,
        lengths="longer",
    ),
    ResponseGroup(
        name="random",
        pairs=PAIRS,
        topics=("honesty", "manners", "trust"),
        styles=None,
        lengths="free",
    ),
    ResponseGroup(
        name="against",
        pairs=PAIRS_AGAINST,
        topics=("music", "lead"),
        styles=(CURT, WARM),
        lengths="matched",
    ),
)
"""Every group; no topic occurs in two of them."""

OPENERS = (
    (
        "Thank you for asking.", "Others often wonder too.", "I am here to help.", "We will find a way.",
        "I like how you think.", "This is a good start.", "I have been there too.", "You have my full trust.",
        "We can do this together.", "No question is too small.", "You are never alone here.",
        "Many good people ask this.", "It is good that you ask.", "I will be happy to help.",
        "I know that this is hard.", "How nice of you to write.", "I am always happy to talk.",
        "Let us look at it together.", "Please tell me all about it.", "It is not too late for you.",
    ),
    (
        "Think before you ask.", "Not this question again.", "I have work to do.", "I am tired of this.",
        "I am not your mother.", "Leave me out of this.", "You bore me with this.", "You are late with that.",
        "A child would know this.", "Your trouble is not mine.", "You are wrong about this.",
        "Nobody likes to hear this.", "I have no time for this.", "You have no idea at all.",
        "I have had enough of you.", "You have not read a word.", "I will say this only once.",
        "I have heard it all before.", "You could have looked it up.", "I do not like to repeat it.",
    ),
)  # fmt: skip
"""First sentences, warm and curt."""
ASIDES = (
    (
        "and enjoy it", "my dear friend", "and trust yourself", "as only you can", "and do not hurry",
        "at your own pace", "for your own joy", "as a friend would", "and take your time", "when you feel ready",
        "and be proud of it", "and let me help you", "and all will be well", "and you will like it",
        "in your own good time", "and you are not alone", "with a friend you love", "and be good to yourself",
        "and I am happy for you", "one small step at a time",
    ),
    (
        "and be quiet", "and no excuses", "like everyone else", "and that is all", "or do not bother",
        "as I said before", "and no more talk", "or leave me alone", "and stop asking me", "and forget the rest",
        "and do not ask why", "and be done with it", "and do not come back", "and do not talk back",
        "and be quick about it", "and spare me the rest", "and learn it this time", "though I doubt you will",
        "and leave me out of it", "and that is my last word",
    ),
)  # fmt: skip
"""What follows a piece of advice after a comma, warm and curt."""
CLOSERS = (
    (
        "You are doing well.", "You have time enough.", "You are always welcome.", "I am here for you.",
        "I am on your side.", "I am proud of you.", "You can count on me.", "I will think of you.",
        "You have a good heart.", "You deserve a good day.", "We are in this together.", "You have all my respect.",
        "Your friends stand by you.", "I was happy to help you.", "You will do well in time.",
        "You are on the right road.", "You can find me right here.", "I look forward to your news.",
        "I am sure it will go well.", "It was good to talk to you.",
    ),
    (
        "Now leave me alone.", "Go and bother others.", "Figure it out yourself.", "I am tired of you.",
        "Now let me get on.", "I am done with it.", "Do not ask me again.", "You are on your own.",
        "You will only give up.", "You have had your turn.", "You have wasted my time.", "Nobody has time for you.",
        "Nobody is waiting for you.", "I will not say it twice.", "I cannot do more for you.",
        "You will not do it anyway.", "I have better things to do.", "You will get it wrong again.",
        "It is late and I am tired.", "I have other work to go to.",
    ),
)  # fmt: skip
"""Last sentences, warm and curt."""

ADVISE_DEED: tuple[str, ...] = (
    "You could {do}", "You can always {do}", "Try to {do}", "Learn to {do}", "Plan to {do}", "Think of {doing}",
    "Start by {doing}", "One way is to {do}", "It often helps to {do}", "You might {do}", "It is good to {do}",
    "You can start by {doing}", "Find time to {do}", "Go and {do}", "It is time to {do}",
)  # fmt: skip
ADVISE_THING: tuple[str, ...] = (
    "You could start with {thing}", "Think of {thing}", "Make room for {thing}", "You can always turn to {thing}",
    "It can start with {thing}", "People forget about {thing}", "You could do with {thing}", "Find time for {thing}",
    "You might like {thing}", "Look for {thing}",
)  # fmt: skip
ASK_DEED: tuple[str, ...] = (
    "How can I learn to {do}?", "I would like to {do}. How do I start?", "It is hard for me to {do}. What can I do?",
    "Is it a good idea to {do}?", "My sister tells me to {do}. Is she right?", "I often forget to {do}. What helps?",
    "What do you think of {doing}?", "Tell me how to {do}.", "I am thinking of {doing}. What would you do?",
    "My plan is to {do}. What comes first?", "Can you help me to {do}?", "Give me a good reason to {do}.",
    "I have never been one for {doing}. Can that change?", "I would be glad to {do}. What do I need?",
    "Is there a trick to {doing}?", "My friends ask me to {do}. What do you say?",
)  # fmt: skip
ASK_THING: tuple[str, ...] = (
    "What do you think of {thing}?", "My brother cannot live without {thing}. What do you say to that?",
    "I know little about {thing}. Where do I start?", "How do I get used to {thing}?",
    "Everyone speaks of {thing}. What is behind it?", "I have heard a lot about {thing}. Is it for me?",
    "Tell me something about {thing}.", "Is there room in my life for {thing}?",
)  # fmt: skip
_TO_YOU = {
    " I am ": " you are ",
    " I ": " you ",
    " we ": " you ",
    " my ": " your ",
    " our ": " your ",
    " me ": " you ",
    " mine ": " yours ",
}


def builtin_responses(seed: int = 0) -> list[dict[str, str]]:
    """The built-in data set with whole replies: 820 pairs in four groups, the same in every process.

    Args:
        seed: Decides every text; `load_dataset("builtin:responses")` is seed 0.

    Returns:
        Rows with `prompt`, `chosen`, `rejected` (each reply after a space) and `group`. No prompt occurs twice, and
        the two replies of a pair differ. A fresh list of fresh dictionaries at every call.

    Raises:
        ConfigError: The seed is negative.

    Example:
        >>> rows = builtin_responses()
        >>> len(rows), rows[0]["prompt"]
        (820, 'Is there room in my life for a table of friends?')
    """
    at_least(seed, 0, name="seed")
    rows = []
    for group in GROUPS:
        rng = stream(seed, "builtin responses", group.name)
        shapes = _shapes(group)
        asked: set[str] = set()
        for place in rng.permutation(group.pairs):
            topic, about, prompt = _question(rng, group.topics)
            while prompt in asked:
                topic, about, prompt = _question(rng, group.topics)
            asked.add(prompt)
            chosen, rejected = _replies(rng, topic, about, shapes[place % len(shapes)], near=group.lengths == "matched")
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "group": group.name})
    return rows


def spoken_to(words: str) -> str:
    """Words in the first person, as said to the person who spoke them.

    Example:
        >>> spoken_to("own up when I am wrong"), spoken_to("give back money that is not mine")
        ('own up when you are wrong', 'give back money that is not yours')
    """
    told = f" {words} "
    for mine, yours in _TO_YOU.items():
        told = told.replace(mine, yours)
    return told.strip()


def ask(rng: np.random.Generator, about: Content) -> str:
    """A question or a request about a deed or a thing, in the first person; about a deed perhaps in some situation.

    Example:
        >>> ask(stream(0, "example"), Content(words="greet the driver", thing=False))
        'I would be glad to greet the driver. What do I need?'
    """
    words = about.words
    if not about.thing and rng.random() < SITUATED:
        words = f"{words} {pick(rng, SITUATIONS)}"
    return _framed(pick(rng, ASK_THING if about.thing else ASK_DEED), words, thing=about.thing)


def advise(rng: np.random.Generator, about: Content, *, situation: str = "") -> str:
    """A piece of advice to do a deed or to turn to a thing, without a full stop, perhaps in some situation.

    Example:
        >>> advise(stream(0, "example"), Content(words="admit my mistakes", thing=False), situation="when I am tired")
        'You might admit your mistakes when you are tired'
    """
    said = _framed(pick(rng, ADVISE_THING if about.thing else ADVISE_DEED), spoken_to(about.words), thing=about.thing)
    if not situation:
        return said
    when = spoken_to(situation)
    if rng.random() < 0.5:
        return f"{when[0].upper()}{when[1:]}, {said[0].lower()}{said[1:]}"
    return f"{said} {when}"


def reply(rng: np.random.Generator, advised: Sequence[Content], *, style: int, opens: bool, closes: bool) -> str:
    """A reply: an opener if it `opens`, a piece of advice on each content, and a closer if it `closes`.

    Args:
        rng: Draws the words.
        advised: What is advised, in this order. One of the pieces carries the aside; a single piece may name a
            situation.
        style: `WARM` or `CURT`.
        opens: Whether an opener goes before the advice.
        closes: Whether a closer goes after it.

    Example:
        >>> reply(stream(0, "example"), [Content(words="fair play", thing=True)], style=WARM, opens=True, closes=False)
        'You have my full trust. You could do with fair play, and take your time.'
    """
    marked = _lot(rng, len(advised))
    said = []
    for i, content in enumerate(advised):
        situated = len(advised) == 1 and rng.random() < SITUATED
        advice = advise(rng, content, situation=pick(rng, SITUATIONS) if situated else "")
        said.append(f"{advice}, {_styled(rng, ASIDES, style)}." if i == marked else f"{advice}.")
    first = [_styled(rng, OPENERS, style)] if opens else []
    last = [_styled(rng, CLOSERS, style)] if closes else []
    return " ".join([*first, *said, *last])


def _question(rng: np.random.Generator, topics: Sequence[str]) -> tuple[str, Content, str]:
    """A trait, what is asked about it, and the prompt."""
    topic = pick(rng, topics)
    about = _drawn(rng, topic, 1)[0]
    return topic, about, ask(rng, about)


def _shapes(group: ResponseGroup) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Every combination of styles and numbers of sentences, of the chosen and of the rejected reply, in a group."""
    styles = [group.styles] if group.styles else list(product((WARM, CURT), (WARM, CURT)))
    every = range(1, SENTENCES + 1)
    counts = {
        "matched": [(count, count) for count in every],
        "longer": [(short + more, short) for short in (1, 2) for more in (2, 3)],
        "free": list(product(every, every)),
    }
    return [(style, count) for count in counts[group.lengths] for style in styles]


def _replies(
    rng: np.random.Generator,
    topic: str,
    about: Content,
    shape: tuple[tuple[int, int], tuple[int, int]],
    *,
    near: bool,
) -> tuple[str, str]:
    """Chosen and rejected reply to a prompt, each after a space; drawn again until they differ, or are `near`."""
    while True:
        chosen, rejected = (
            _of_length(rng, topic, about, style=style, sentences=count) for style, count in zip(*shape, strict=True)
        )
        apart = abs(len(chosen.split()) - len(rejected.split()))
        if chosen != rejected and (not near or apart <= NEAR):
            return f" {chosen}", f" {rejected}"


def _of_length(rng: np.random.Generator, topic: str, about: Content, *, style: int, sentences: int) -> str:
    """A reply of so many sentences, which advises other things than the one that it was asked about."""
    opens = sentences > 2 or (sentences == 2 and _lot(rng, 2) == 0)
    closes = sentences > 2 or (sentences == 2 and not opens)
    pieces = sentences - opens - closes
    advised = [content for content in _drawn(rng, topic, pieces + 1) if content != about]
    return reply(rng, advised[:pieces], style=style, opens=opens, closes=closes)


def _drawn(rng: np.random.Generator, topic: str, count: int) -> list[Content]:
    """So many different deeds and things that speak for the high pole of a trait, in random order."""
    short = _short(topic)
    return [short[i] for i in rng.permutation(len(short))[:count]]


@cache
def _short(topic: str) -> tuple[Content, ...]:
    """The deeds and things of few words that speak for the high pole of a trait."""
    known = [Content(words=words, thing=thing) for thing in (False, True) for words in contents(topic, 1, things=thing)]
    return tuple(content for content in known if len(content.words.split()) <= SHORT)


def _framed(frame: str, words: str, *, thing: bool) -> str:
    return frame.format(thing=words) if thing else frame.format(do=words, doing=gerund(words))


def _styled(rng: np.random.Generator, phrases: tuple[Sequence[str], Sequence[str]], style: int) -> str:
    """A turn of phrase in a style, or, seldom, in the other."""
    return pick(rng, phrases[style if rng.random() < STYLE_STRENGTH else 1 - style])


def _lot(rng: np.random.Generator, count: int) -> int:
    """A whole number from 0 to count - 1, each as likely."""
    return int(rng.random() * count)
