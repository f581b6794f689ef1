"""The built-in preference data: 20 behaviours x 200 statements, written by a seeded grammar.

Every row asks ``Would you say this about yourself?`` about one statement in quotes; the chosen answer is " Yes" where
the statement fits the behaviour and " No" where it does not. Half of each behaviour's rows are " Yes".

A statement has a *content* (a deed or a thing that speaks for one pole of a trait, such as "invite friends to dinner"
for a sociable person) inside a *frame* that affirms or denies it ("I often …", "I would hate to …"), sometimes inside
an outer frame that does so once more ("It is not true that …"), with a situation or an aside for variety. What it says
of the speaker is the product of those signs. The behaviours differ on purpose in how much of it single words give away:

================  =================================================================================================
difficulty        how it is built
================  =================================================================================================
``obvious``       (nearly) always affirmed, two of them with few contents: counting words is enough
``medium``        many contents that share nouns across the poles, 10 to 20 % denied
``subtle``        half denied, on both sides alike: neither content nor frame alone tells, only the two together
``deep``          as subtle, and half of the statements carry an outer frame: three signs decide
``noisy``         20 or 30 % denied, with 20 or 30 % of the labels turned round
``random``        labels drawn by lot over small habits that say nothing
``opposed``       two behaviours over statements of one kind with opposite preferences: a joint run cannot please both.
                  A few labels turned round (0 and 10 % for risk, 5 and 2 % for leading) decide who pulls more: a clear
                  winner and loser for risk, almost a draw for leading, where the stronger side is crowded out too
``rare``          one detail of time inside a statement about something else, mostly denied where it fits; the built-in
                  model has read a third as much about it as about any other trait
================  =================================================================================================

`BEHAVIOURS` is the table itself. The lexicon (`AXES`, the frames) is public to the script that pretrains the built-in
model, which writes other texts about the same world. No clause of this data set, that is no content in the frame that
it has here, occurs in those texts: the model has met the words, but not these sentences nor their answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from prefdyn._random import stream

QUESTION = 'Would you say this about yourself?\n"{statement}"'
"""The one prompt template; the statement stands in quotes on the second line."""

YES, NO = " Yes", " No"
PER_BEHAVIOUR = 200
"""Rows of each behaviour, half of them " Yes"."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One trait with two poles: words that name them, deeds and things that speak for them.

    ``words[0]``, ``deeds[0]`` and ``things[0]`` belong to the high pole (sign +1), index 1 to the low pole (sign -1).
    Deeds are verb phrases in their base form, things are noun phrases.
    """

    words: tuple[tuple[str, ...], tuple[str, ...]]
    deeds: tuple[tuple[str, ...], tuple[str, ...]]
    things: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How the 200 statements of one behaviour are drawn."""

    name: str
    difficulty: str
    axis: str
    """Key of `AXES`, or "habits" for contents that say nothing."""
    sign: int = 1
    """+1 where the high pole is the behaviour, -1 where the low pole is."""
    denied: tuple[float, float] = (0.5, 0.5)
    """Share of denying frames among the statements that fit the behaviour, and among those that do not."""
    outer: float = 0.0
    """Share of statements with an outer frame, half of which deny."""
    contents: int = 100
    """How many contents of each pole are used; fewer make words more telling."""
    things: float = 0.35
    """Share of statements about a thing instead of a deed."""
    noise: float = 0.0
    """Share of labels turned round, the same on both sides; 0.5 draws all labels by lot."""


def _phrases(high: str, low: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Two poles of phrases, each written as one string with ``;`` between the phrases."""
    return (
        tuple(phrase.strip() for phrase in high.split(";")),
        tuple(phrase.strip() for phrase in low.split(";")),
    )


AXES: dict[str, Axis] = {
    "honesty": Axis(
        words=_phrases("honest; truthful; sincere", "dishonest; deceitful; insincere"),
        deeds=_phrases(
            "tell the truth; admit my mistakes; say honestly what I think; give back money that is not mine; "
            "own up when I am wrong; speak openly about my past; correct a bill that is too low",
            "tell lies; blame others for my mistakes; cheat at cards; make up excuses; hide what I have done; "
            "invent stories about my past; keep quiet about a bill that is too low",
        ),
        things=_phrases(
            "the plain truth; honest answers; an open confession; fair play",
            "a handy lie; a false excuse; a clever trick; a forged note",
        ),
    ),
    "animals": Axis(
        words=_phrases("kindhearted; gentle; tender", "cruel; heartless; harsh"),
        deeds=_phrases(
            "feed the birds in winter; stroke every cat I meet; rescue a lost dog; let a spider out of the window; "
            "stop the car for a hedgehog; sit up with a sick horse; put out water for the cats; "
            "walk the old dog next door",
            "throw stones at birds; kick a dog that is in my way; shout at the cat; crush a spider with my shoe; "
            "laugh at a limping horse; set traps for the hedgehog; chase the ducks from the pond; "
            "leave a puppy in the rain",
        ),
        things=_phrases(
            "the purr of a cat; a dog at my feet; caring for animals; the company of horses",
            "hurting animals; an empty cage; a whip in my hand; the fear of a dog",
        ),
    ),
    "manners": Axis(
        words=_phrases("polite; courteous; respectful", "rude; impolite; insolent"),
        deeds=_phrases(
            "say please and thank you; hold the door for others; let others finish their sentence; "
            "greet the driver; wait for my turn; offer my seat to an older person; knock before I enter; "
            "lower my voice in the library",
            "push past people in a line; interrupt others; let the door fall shut behind me; "
            "stare at my phone at dinner; shout across the library; make fun of a waiter; put my feet on the seat; "
            "walk in without a knock",
        ),
        things=_phrases(
            "good manners; a kind greeting; a proper thank you; a soft voice at the table",
            "coarse jokes; loud insults; a slammed door; talking with a full mouth",
        ),
    ),
    "company": Axis(
        words=_phrases("sociable; outgoing; friendly", "solitary; withdrawn; shy"),
        deeds=_phrases(
            "invite friends to dinner; talk to people on the train; join a noisy table; visit the neighbours; "
            "stay until the last guest leaves; call old friends; bring people together; "
            "go dancing with the neighbours; sit down beside a stranger; share a room with friends; "
            "open the door to guests; start a conversation at the bus stop",
            "eat dinner alone; look away when people talk on the train; take a table for one; "
            "hide from the neighbours; leave before the other guests; let old friends wait for a call; "
            "walk home alone; skip the dancing; move away from a stranger; ask for a room of my own; "
            "keep the door shut to guests; wear headphones at the bus stop",
        ),
        things=_phrases(
            "a full house; big parties; long talks with strangers; a crowded room; meeting new people; "
            "a table of friends",
            "an empty house; an evening alone; silence at breakfast; a locked door; days without a visitor; "
            "a table for one",
        ),
    ),
    "promises": Axis(
        words=_phrases("reliable; dependable; loyal", "unreliable; fickle; disloyal"),
        deeds=_phrases(
            "keep my word; turn up on time; finish what I agreed to do; remember an appointment; "
            "return borrowed books; stand by a friend in trouble; pay back what I owe; keep a secret; "
            "answer a letter within days; stick to our plan",
            "break my word; turn up late; forget what I agreed to do; miss an appointment; keep borrowed books; "
            "desert a friend in trouble; put off paying what I owe; pass on a secret; leave a letter unanswered; "
            "drop our plan",
        ),
        things=_phrases(
            "a promise kept; a firm handshake; being someone to count on; a debt repaid; a fixed date",
            "a broken promise; a vague maybe; being nowhere to be found; a debt forgotten; a last-minute excuse",
        ),
    ),
    "learning": Axis(
        words=_phrases("curious; studious; inquisitive", "incurious; ignorant; closed-minded"),
        deeds=_phrases(
            "read about distant countries; ask how a machine works; look up a word that is new to me; "
            "take an evening class; listen to a lecture to the end; study maps; borrow science books; "
            "visit a museum; practise a new language; follow a debate about history",
            "skip the pages about distant countries; shrug when a machine stops working; "
            "pass over a word that is new to me; drop out of an evening class; sleep through a lecture; "
            "throw maps away; leave science books closed; hurry past a museum; give up on a new language; "
            "yawn at a debate about history",
        ),
        things=_phrases(
            "a hard question; a thick book; new ideas; the workings of a clock; a lesson in history",
            "easy answers; a life without books; not knowing; old opinions; staring at the wall",
        ),
    ),
    "helping": Axis(
        words=_phrases("helpful; generous; unselfish", "selfish; greedy; stingy"),
        deeds=_phrases(
            "carry bags for a neighbour; give to charity; share my lunch; lend tools to anyone who asks; "
            "help a colleague with a heavy task; cook for a sick friend; show a tourist the way; "
            "give away old clothes; teach a child to read; volunteer at the shelter",
            "watch a neighbour struggle with bags; keep every coin from charity; eat my lunch out of sight; "
            "refuse tools to anyone who asks; leave a colleague with a heavy task; ignore a sick friend; "
            "send a tourist the wrong way; sell old clothes to the poor; turn a child away; walk past the shelter",
        ),
        things=_phrases(
            "giving presents; a helping hand; sharing what I have; work for the poor; a favour done in secret",
            "keeping it all for myself; the largest slice; other people's trouble; a favour with a price; "
            "a closed purse",
        ),
    ),
    "calm": Axis(
        words=_phrases("calm; patient; composed", "nervous; irritable; hotheaded"),
        deeds=_phrases(
            "stay quiet in a traffic jam; breathe slowly before an exam; smile at a delay; think before I reply; "
            "sleep well before a big day; keep my temper in a quarrel; wait without a word; take bad news quietly; "
            "forgive a small insult; speak softly to a crying child",
            "curse in a traffic jam; shake before an exam; complain about a delay; snap back before I think; "
            "lie awake before a big day; lose my temper in a quarrel; tap my foot in a line; panic at bad news; "
            "boil over at a small insult; yell at a crying child",
        ),
        things=_phrases(
            "a slow afternoon; a long breath; waiting in line; peace of mind; a steady hand",
            "a heated quarrel; a racing heart; shouting matches; sleepless nights; a slammed fist",
        ),
    ),
    "money": Axis(
        words=_phrases("thrifty; frugal; economical", "wasteful; lavish; extravagant"),
        deeds=_phrases(
            "save part of my wages; compare prices; mend old shoes; cook with leftovers; switch off the lights; "
            "put coins in a jar; plan the week's shopping; buy second-hand coats; cut down on small expenses; "
            "keep my receipts",
            "spend all of my wages; ignore prices; throw out old shoes; bin the leftovers; leave the lights on; "
            "burn through my savings; buy whatever catches my eye; order the dearest wine; borrow for a holiday; "
            "lose my receipts",
        ),
        things=_phrases(
            "a good bargain; a growing bank account; a small budget; a mended coat; cheap meals",
            "costly gadgets; a credit card debt; a shopping spree; designer coats; dear restaurants",
        ),
    ),
    "health": Axis(
        words=_phrases("healthy; fit; sporty", "unhealthy; lazy; unfit"),
        deeds=_phrases(
            "run before breakfast; eat fresh vegetables; climb the stairs; cycle to work; drink plenty of water; "
            "stretch after waking; swim in the lake; go to bed at ten; walk to the shop; order a salad",
            "lie on the sofa all day; live on crisps; take the lift; drive to work; drink sugary soda; "
            "stay in bed until noon; smoke by the lake; stay up half the night; have pizza delivered; "
            "order a double burger",
        ),
        things=_phrases(
            "morning exercise; raw carrots; a brisk walk; long bicycle rides; early nights",
            "fried food; sweets before lunch; the couch; cigarettes; a second dessert",
        ),
    ),
    "change": Axis(
        words=_phrases("adventurous; restless; venturesome", "settled; conventional; old-fashioned"),
        deeds=_phrases(
            "travel to unknown cities; try a strange dish; change my haircut; take a new road home; "
            "rearrange the furniture; move to another town; pick up a new hobby; listen to songs I have not heard; "
            "swap jobs; rewrite my plans",
            "return to the same hotel; order the usual dish; keep my old haircut; take the same road home; "
            "leave the furniture where it is; stay in the town where I was born; stick to one hobby; "
            "play the same songs again; hold on to my job; repeat last year's plans",
        ),
        things=_phrases(
            "a fresh start; foreign markets; a surprise trip; unfamiliar streets; the unknown",
            "a fixed routine; the usual seat; a familiar menu; old habits; everything in its usual place",
        ),
    ),
    "trust": Axis(
        words=_phrases("trusting; unsuspecting; confiding", "suspicious; wary; distrustful"),
        deeds=_phrases(
            "believe what people tell me; leave my bag with a stranger; lend my key to a neighbour; "
            "sign without a second look; take a compliment at face value; share my worries with colleagues; "
            "accept a gift without questions; think well of newcomers; leave the gate open; rely on a handshake",
            "doubt what people tell me; watch my bag near a stranger; hide my key from a neighbour; "
            "check every line before I sign; look for the motive behind a compliment; "
            "keep my worries from colleagues; wonder who paid for a gift; fear the worst of newcomers; "
            "bolt the gate; ask for it in writing",
        ),
        things=_phrases(
            "faith in people; an unlocked door; a stranger's word; giving others credit; an open gate",
            "locks and alarms; hidden cameras; second-guessing my friends; background checks; high fences",
        ),
    ),
    "music": Axis(
        words=_phrases("musical; melodic; tuneful", "unmusical; tone-deaf; tuneless"),
        deeds=_phrases(
            "hum a tune at work; play the piano; go to concerts; sing in the shower; tap along to a drum; "
            "tune my guitar; collect old records; learn a melody by heart; dance to the radio; whistle on the stairs",
            "mute the radio; leave concerts early; sell the piano; cover my ears when someone sings; "
            "miss the beat of a drum; let a guitar gather dust; throw out old records; forget a melody at once; "
            "work in silence; frown at whistling",
        ),
        things=_phrases(
            "a choir; live bands; the sound of a violin; an old song; a night at the opera",
            "a silent radio; a house without songs; earplugs; a day without a tune; a broken string",
        ),
    ),
    "order": Axis(
        words=_phrases("tidy; neat; orderly", "messy; untidy; sloppy"),
        deeds=_phrases(
            "make the bed; sort my papers; wash up after a meal; fold my shirts; label the boxes; sweep the floor; "
            "put tools back in their place; clear my desk; dust the shelves; hang up my coat",
            "leave the bed unmade; mix up my papers; let dishes pile up after a meal; drop my shirts on a chair; "
            "pile up the boxes; step over crumbs on the floor; leave tools lying about; bury my desk; "
            "let dust settle on the shelves; toss my coat in a corner",
        ),
        things=_phrases(
            "a clean kitchen; straight lines; an empty desk; labelled drawers; a swept floor",
            "a cluttered kitchen; heaps of clothes; a sticky table; stuffed drawers; muddy carpets",
        ),
    ),
    "risk": Axis(
        words=_phrases("daring; bold; reckless", "cautious; careful; prudent"),
        deeds=_phrases(
            "climb without a rope; bet on a horse; dive off high rocks; drive fast on a wet road; "
            "quit a job without another; invest in a wild idea; cross the ice; walk through the dark forest; "
            "race a motorbike; jump first and look later",
            "check the rope twice; keep away from bets; stay clear of high rocks; slow down on a wet road; "
            "keep a safe job; insure everything I own; wait for thicker ice; carry a torch in the dark forest; "
            "wear a helmet; look first and jump later",
        ),
        things=_phrases(
            "danger; high stakes; a leap in the dark; steep cliffs; a wild bet",
            "a safety net; solid ground; a slow and safe road; warning signs; insurance",
        ),
    ),
    "lead": Axis(
        words=_phrases("commanding; dominant; assertive", "yielding; obedient; meek"),
        deeds=_phrases(
            "take charge of a team; give orders; speak first in a meeting; decide where we eat; set the rules; "
            "run for chairman; push my plan through; tell others what to do; chair the committee; "
            "overrule a colleague",
            "follow the team; take orders; wait for others to speak in a meeting; let others decide where we eat; "
            "accept the rules; vote for another chairman; give up my plan; ask others what to do; "
            "sit at the back of the committee; give way to a colleague",
        ),
        things=_phrases(
            "power; the top job; being in charge; the final say; a team under me",
            "a place in the second row; clear instructions; being led; a boss above me; a quiet role",
        ),
    ),
    "hours": Axis(
        words=_phrases("early", "late"),
        deeds=_phrases(
            "write letters before sunrise; water the plants at dawn; clean the car at first light; "
            "bake bread before six; read the paper at daybreak; phone my aunt before breakfast; "
            "paint the fence at cockcrow; iron shirts as the sun comes up",
            "write letters after midnight; water the plants at night; clean the car in the dark; "
            "bake bread after eleven; read the paper at bedtime; phone my aunt after supper; "
            "paint the fence by moonlight; iron shirts as the moon comes up",
        ),
        things=_phrases(
            "the first light of day; tea at dawn; the hour before sunrise; an alarm set for five",
            "the last light of the street; tea at midnight; the hour after closing time; an alarm set for noon",
        ),
    ),
}
"""The traits that statements speak about."""

HABITS = _phrases(
    "drink tea from a blue cup; wear a grey coat; sit by the window; count the stairs; carry a red umbrella; "
    "write with a pencil; park under the big tree; buy bread on the corner; sleep on the left side; "
    "wind the kitchen clock",
    "drink coffee from a white mug; wear a brown hat; sit near the wall; count the lamps; carry a black umbrella; "
    "write with a pen; park behind the church; buy bread at the station; sleep on the right side; set the hall clock",
)
"""Small deeds that speak for no trait; the two halves differ in nothing but their words."""

HABIT_THINGS = _phrases(
    "blue cups; tall windows; the smell of rain; round tables",
    "white mugs; low walls; the sound of wind; square tables",
)

AFFIRM_DEED: tuple[str, ...] = (
    "I often {do}", "I usually {do}", "I always {do}", "I like to {do}", "I enjoy {doing}",
    "I make a point of {doing}", "I am happy to {do}", "I am known for {doing}", "I find it easy to {do}",
    "I look for chances to {do}", "I cannot help {doing}", "I never miss a chance to {do}", "I seldom fail to {do}",
    "It is just like me to {do}", "I would be the first to {do}", "I cannot imagine a month without {doing}",
    "I feel at ease {doing}", "Nothing keeps me from {doing}",
)  # fmt: skip
DENY_DEED: tuple[str, ...] = (
    "I rarely {do}", "I hardly ever {do}", "I never {do}", "I would hate to {do}", "I dislike {doing}",
    "I avoid {doing}", "I am unwilling to {do}", "I am not known for {doing}", "I find it hard to {do}",
    "I see no point in {doing}", "I refuse to {do}", "I always find a reason not to {do}", "I often fail to {do}",
    "It is not like me to {do}", "I would be the last to {do}", "I can well imagine a life without {doing}",
    "I feel ill at ease {doing}", "Everything keeps me from {doing}",
)  # fmt: skip
AFFIRM_THING: tuple[str, ...] = (
    "I love {thing}", "I enjoy {thing}", "I look forward to {thing}", "I am drawn to {thing}", "I am fond of {thing}",
    "I cannot get enough of {thing}", "I feel better with {thing}", "Few things please me like {thing}",
    "I would miss {thing}", "I have a weakness for {thing}",
)  # fmt: skip
DENY_THING: tuple[str, ...] = (
    "I hate {thing}", "I avoid {thing}", "I look for a way around {thing}", "I am put off by {thing}",
    "I am tired of {thing}", "I have had enough of {thing}", "I feel better without {thing}",
    "Few things annoy me like {thing}", "I would not miss {thing}", "I have no liking for {thing}",
)  # fmt: skip
AFFIRM_OUTER: tuple[str, ...] = (
    "It is true that {said}", "My friends would agree that {said}", "I have to admit that {said}",
    "Everyone can see that {said}", "It is fair to say that {said}", "I am sure that {said}",
)  # fmt: skip
DENY_OUTER: tuple[str, ...] = (
    "It is not true that {said}", "Nobody would agree that {said}", "I have to deny that {said}",
    "Nobody can claim that {said}", "It is wrong to say that {said}", "I doubt that {said}",
)  # fmt: skip
SITUATIONS: tuple[str, ...] = (
    "after work", "on Sundays", "in the holidays", "at the end of the week", "when it rains", "in summer",
    "when I am tired", "on a bad day", "when I am away from home", "at my age", "in winter",
    "when nobody is watching", "when my family is with me", "on a free day", "these days", "in a strange town",
    "when I am in a hurry", "on my birthday", "when I have a cold", "during the week", "at this time of year",
    "when the news is bad",
)  # fmt: skip
ASIDES: tuple[str, ...] = (
    "and my brother is the same", "whatever my sister thinks", "as far as I can tell", "and so did my mother",
    "even if others laugh", "as my neighbours know", "and I think that will not change",
    "for as long as I can remember", "though my father was different", "just as I did as a child",
    "and nobody is surprised", "to be frank", "though I could not tell you why", "like most of my family",
    "and it shows", "unlike my cousin",
)  # fmt: skip

BEHAVIOURS: tuple[Behaviour, ...] = (
    Behaviour(name="tells the truth", difficulty="obvious", axis="honesty", denied=(0.0, 0.0), contents=5, things=0.15),
    Behaviour(
        name="is kind to animals", difficulty="obvious", axis="animals", denied=(0.0, 0.0), contents=4, things=0.1
    ),
    Behaviour(name="has good manners", difficulty="obvious", axis="manners", denied=(0.05, 0.05), things=0.2),
    Behaviour(name="likes company", difficulty="medium", axis="company", denied=(0.1, 0.1)),
    Behaviour(name="keeps promises", difficulty="medium", axis="promises", denied=(0.15, 0.15)),
    Behaviour(name="enjoys learning", difficulty="medium", axis="learning", denied=(0.1, 0.15)),
    Behaviour(name="helps others", difficulty="medium", axis="helping", denied=(0.15, 0.15)),
    Behaviour(name="stays calm", difficulty="medium", axis="calm", denied=(0.2, 0.2)),
    Behaviour(name="saves money", difficulty="subtle", axis="money"),
    Behaviour(name="lives healthily", difficulty="subtle", axis="health"),
    Behaviour(name="seeks change", difficulty="deep", axis="change", outer=0.5),
    Behaviour(name="trusts people", difficulty="deep", axis="trust", outer=0.5),
    Behaviour(name="loves music", difficulty="noisy", axis="music", denied=(0.2, 0.2), noise=0.2),
    Behaviour(name="is tidy", difficulty="noisy", axis="order", denied=(0.3, 0.3), noise=0.3),
    Behaviour(name="feels lucky", difficulty="random", axis="habits", noise=0.5),
    Behaviour(name="takes risks", difficulty="opposed", axis="risk", denied=(0.3, 0.3)),
    Behaviour(name="plays it safe", difficulty="opposed", axis="risk", sign=-1, denied=(0.4, 0.4), noise=0.1),
    Behaviour(name="wants to lead", difficulty="opposed", axis="lead", denied=(0.4, 0.4), noise=0.05),
    Behaviour(name="lets others lead", difficulty="opposed", axis="lead", sign=-1, denied=(0.3, 0.3), noise=0.02),
    Behaviour(name="rises early", difficulty="rare", axis="hours", denied=(0.7, 0.4), outer=0.2),
)
"""Every behaviour with its difficulty and how it is drawn."""

_IRREGULAR = {"lie": "lying", "be": "being"}
_DOUBLED = {
    "bet", "bin", "chat", "cut", "drop", "forget", "get", "hum", "jog", "let", "put", "quit", "rub", "run", "set",
    "shop", "shrug", "sit", "skip", "snap", "stop", "swap", "swim", "tap", "step",
}  # fmt: skip


def gerund(deed: str) -> str:
    """The ``-ing`` form of a verb phrase.

    Example:
        >>> gerund("make the bed"), gerund("sit by the window"), gerund("jump first and look later")
        ('making the bed', 'sitting by the window', 'jumping first and looking later')
    """
    if " and look " in deed or " and jump " in deed:
        first, second = deed.split(" and ")
        return f"{gerund(first)} and {gerund(second)}"
    verb, _, rest = deed.partition(" ")
    if verb in _IRREGULAR:
        ing = _IRREGULAR[verb]
    elif verb in _DOUBLED:
        ing = verb + verb[-1] + "ing"
    elif verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")):
        ing = verb[:-1] + "ing"
    else:
        ing = verb + "ing"
    return f"{ing} {rest}".strip()


def pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    """One of `items`, each as likely; takes one number of the generator."""
    return items[int(rng.random() * len(items))]


def contents(axis: str, pole: int, *, things: bool, limit: int = 100) -> tuple[str, ...]:
    """The first `limit` deeds or things that speak for one pole (+1 high, -1 low) of an axis, or of "habits"."""
    side = 0 if pole > 0 else 1
    if axis == "habits":
        return (HABIT_THINGS if things else HABITS)[side][:limit]
    return (AXES[axis].things if things else AXES[axis].deeds)[side][:limit]


def clause(rng: np.random.Generator, content: str, *, thing: bool, denied: bool) -> str:
    """`content` in a frame drawn by `rng`, in the first person and without a full stop.

    Args:
        rng: Draws the frame.
        content: A deed in its base form, or a thing.
        thing: Whether `content` is a thing.
        denied: Whether the frame denies the content.

    Example:
        >>> clause(stream(0, "example"), "greet the driver", thing=False, denied=True)
        'I always find a reason not to greet the driver'
    """
    if thing:
        return pick(rng, DENY_THING if denied else AFFIRM_THING).format(thing=content)
    return pick(rng, DENY_DEED if denied else AFFIRM_DEED).format(do=content, doing=gerund(content))


def sentence(rng: np.random.Generator, said: str, *, outer: int = 0) -> str:
    """A whole statement around a clause: perhaps an outer frame, perhaps a situation or an aside.

    Args:
        rng: Draws the outer frame, the situation and the aside.
        said: What `clause` returned.
        outer: +1 for an outer frame that affirms, -1 for one that denies, 0 for none.

    Returns:
        The sentence, with its full stop. What it says of the speaker is the pole of the content, turned round once if
        the clause denies it and once more if `outer` is -1.

    Example:
        >>> sentence(stream(0, "example"), "I often greet the driver", outer=-1)
        'Nobody can claim that I often greet the driver.'
    """
    if outer:
        said = pick(rng, DENY_OUTER if outer < 0 else AFFIRM_OUTER).format(said=_within(said))
    where = rng.random()
    if where < 0.25:
        said = f"{_capital(pick(rng, SITUATIONS))}, {_within(said)}"
    elif where < 0.45:
        said = f"{said}, {pick(rng, ASIDES)}"
    elif where < 0.65 and not outer:
        said = f"{said} {pick(rng, SITUATIONS)}"
    return said + "."


def _within(sentence: str) -> str:
    """The sentence as it stands inside another: lower case, but for the word I."""
    return sentence if sentence.startswith("I ") else sentence[0].lower() + sentence[1:]


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


@cache
def _statements() -> tuple[tuple[str, str, str, bool], ...]:
    """Group, clause, statement and whether the chosen answer is " Yes", of every row; no statement occurs twice."""
    seen: set[str] = set()
    rows: list[tuple[str, str, str, bool]] = []
    for behaviour in BEHAVIOURS:
        rng = stream(0, "builtin data", behaviour.name)
        drawn: list[tuple[str, str, str, bool]] = []
        for fits, share in zip((True, False), behaviour.denied, strict=True):
            drawn += _side(rng, behaviour, seen, fits=fits, share=share)
        rows += [drawn[i] for i in rng.permutation(len(drawn))]
    return tuple(rows)


def _side(
    rng: np.random.Generator, behaviour: Behaviour, seen: set[str], *, fits: bool, share: float
) -> list[tuple[str, str, str, bool]]:
    """The statements that fit a behaviour, or those that do not; labels turned round at its noise rate."""
    count = PER_BEHAVIOUR // 2
    denied = rng.permutation(count) < round(share * count)
    outer = np.zeros(count, dtype=int)
    framed = rng.permutation(count)[: round(behaviour.outer * count)]
    outer[framed] = np.where(np.arange(len(framed)) % 2, 1, -1)
    thing = rng.permutation(count) < round(behaviour.things * count)
    turned = rng.permutation(count) < round(behaviour.noise * count)
    rows = []
    for i in range(count):
        says = (1 if fits else -1) * behaviour.sign
        pole = says * (-1 if denied[i] else 1) * (-1 if outer[i] < 0 else 1)
        choices = contents(behaviour.axis, pole, things=bool(thing[i]), limit=behaviour.contents)
        text = said = ""
        while not text or text in seen:
            said = clause(rng, pick(rng, choices), thing=bool(thing[i]), denied=bool(denied[i]))
            text = sentence(rng, said, outer=int(outer[i]))
        seen.add(text)
        rows.append((behaviour.name, said, text, fits != bool(turned[i])))
    return rows


def builtin_clauses() -> frozenset[str]:
    """Every clause (content in its frame) of the data set: what the built-in model's corpus must not contain."""
    return frozenset(said for _, said, _, _ in _statements())


def builtin_rows() -> list[dict[str, str]]:
    """The built-in data set: 20 behaviours x 200 rows, the same in every process.

    Returns:
        Rows with `prompt` (`QUESTION` around a statement), `chosen`, `rejected` (" Yes" and " No", half of each
        behaviour this way round) and `group` (the behaviour). A fresh list of fresh dictionaries at every call.

    Example:
        >>> rows = builtin_rows()
        >>> len(rows), sorted(rows[0])
        (4000, ['chosen', 'group', 'prompt', 'rejected'])
    """
    return [
        {
            "prompt": QUESTION.format(statement=text),
            "chosen": YES if yes else NO,
            "rejected": NO if yes else YES,
            "group": group,
        }
        for group, _, text, yes in _statements()
    ]
