"""Layouts that are known by their columns, each as the mapping that `--columns` would say."""

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import NamedTuple

from prefdyn.data.columns import Columns, columns


class Layout(NamedTuple):
    """A way in which people lay pairs out."""

    name: str
    """What messages call it."""
    says: str
    """Its mapping, as `--columns` takes it. It is recognised where every field without `?` has its column."""

    @property
    def columns(self) -> Columns:
        """The mapping."""
        return _mapping(self.says)


@cache
def _mapping(says: str) -> Columns:
    return columns(says)


_BEFORE = "system=system?+system_prompt?,history=history?"
_ASKED = ("question", "query", "instruction+input?", "input", "problem")


def _asked(name: str, *, chosen: str, rejected: str, prompts: Iterable[str] = _ASKED) -> tuple[Layout, ...]:
    """One layout for each name that the prompt's column goes by."""
    return tuple(Layout(name, f"prompt={prompt},{_BEFORE},chosen={chosen},rejected={rejected}") for prompt in prompts)


TRL = Layout("TRL", "prompt=prompt?,chosen=chosen,rejected=rejected")
LAYOUTS: tuple[Layout, ...] = (
    Layout("TRL", "prompt=prompt,chosen=chosen,rejected=rejected"),
    Layout("LLaMA-Factory (sharegpt)",
           "prompt=conversations,system=system?,tools=tools?,chosen=chosen,rejected=rejected"),
    Layout("Axolotl", "prompt=messages,chosen=chosen,rejected=rejected"),
    Layout("UltraInteract", "prompt=trajectory,chosen=chosen,rejected=rejected"),
    *_asked("question and two responses", chosen="chosen", rejected="rejected"),
    TRL,
    *_asked("question and two responses", chosen="chosen_response", rejected="rejected_response",
            prompts=("prompt", *_ASKED)),
    *_asked("ms-swift (query)", chosen="response", rejected="rejected_response", prompts=("query", "prompt")),
    Layout("ms-swift", "chosen=messages,rejected=rejected_response"),
    Layout("ms-swift", "chosen=messages,rejected=rejected_messages"),
    Layout("OpenAI preference tuning",
           "prompt=input.messages,tools=input.tools?,chosen=preferred_output,rejected=non_preferred_output"),
    *(Layout("completions with ratings", f"prompt={prompt},{_BEFORE},responses={several},ratings={by},pairs=best")
      for prompt in ("prompt", "instruction", "question") for several in ("completions", "responses")
      for by in ("ratings", "scores")),
    Layout("UltraFeedback",
           "prompt=instruction,responses=completions.response,ratings=completions.overall_score,pairs=best"),
    Layout("distilabel", f"prompt=instruction,{_BEFORE},responses=generations,ratings=ratings,pairs=best"),
    Layout("distilabel", f"prompt=input,{_BEFORE},responses=generations,ratings=rating,pairs=best"),
    Layout("distilabel", f"prompt=prompt,{_BEFORE},responses=generations,ratings=ratings,pairs=best"),
    Layout("distilabel (PairRM)", f"prompt=input,{_BEFORE},responses=candidates,ranking=ranks,pairs=best"),
    Layout("distilabel (Prometheus)",
           f"prompt=instruction,{_BEFORE},first=generations.0,second=generations.1,winner=result,values=A/B"),
    Layout("Nectar", "prompt=prompt,responses=answers.answer,ranking=answers.rank,pairs=best"),
    Layout("Stack Exchange (scored answers)",
           "prompt=question,responses=answers.text,ratings=answers.pm_score,pairs=best"),
    Layout("Stack Exchange (paired)", "prompt=question,chosen=response_j,rejected=response_k"),
    Layout("PKU-SafeRLHF", "prompt=prompt,first=response_0,second=response_1,winner=better_response_id,values=0/1"),
    Layout("Stanford Human Preferences",
           "prompt=history,first=human_ref_A,second=human_ref_B,winner=labels,values=1/0,group=domain?"),
    Layout("HelpSteer2", "prompt=prompt,first=response_1,second=response_2,winner=preference_strength,"
           "values=negative/positive"),
    Layout("HelpSteer3", "prompt=context,first=response1,second=response2,winner=overall_preference,"
           "values=negative/positive,group=domain?"),
    Layout("WebGPT comparisons", "prompt=question.full_text,responses=answer_0+answer_1,ratings=score_0+score_1"),
    Layout("Summarize from feedback",
           "prompt=info.post,first=summaries.0.text,second=summaries.1.text,winner=choice,values=0/1"),
    Layout("Chatbot Arena", "first=conversation_a,second=conversation_b,winner=winner"),
    Layout("Chatbot Arena (turns)",
           "prompt=prompt.*,responses=response_a.*+response_b.*,ratings=winner_model_a+winner_model_b"),
    Layout("Preference Collection", "prompt=orig_instruction,first=orig_response_A,second=orig_response_B,"
           "winner=orig_preference"),
    Layout("AlpacaEval", "prompt=instruction+input?,first=output_1,second=output_2,winner=preference,"
           "values=1/2/0|1.5"),
    Layout("LLMBar", "prompt=input,first=output_1,second=output_2,winner=label,values=1/2"),
    Layout("PandaLM", "prompt=instruction+input?,first=response1,second=response2,"
           "winner=annotator1+annotator2+annotator3,values=1/2/0,group=motivation_app?"),
    Layout("FineGrainedRLHF", "prompt=question,responses=prediction 1+prediction 2+prediction 3+prediction 4,"
           "comparisons=preference,values=1/2/0"),
    Layout("TruthfulQA", "prompt=question,chosen=best_answer,rejected=incorrect_answers,pairs=best,group=category?"),
    Layout("UKPConvArg", "prompt=@file,first=a1,second=a2,winner=label,group=@file"),
    Layout("SQuALITY", "each=questions,prompt=passage-id+@key,"
           "responses=bart.response+bart-dpr.response+human.response,"
           "ranking=bart.reviews.overall-rank+bart-dpr.reviews.overall-rank+human.reviews.overall-rank,"
           "raters=bart.reviews.worker_id,votes=each,pairs=all,group=@rater"),
    Layout("LLaMA-Factory (alpaca, old)",
           f"prompt=instruction+input?,{_BEFORE},chosen=output.0,rejected=output.1"),
)  # fmt: skip
"""In this order: the first whose columns are all there."""

_EXTRA = {"SQuALITY": frozenset({"passage-id"})}
"""Columns that tell a layout of nested rows, which names few."""
_UNPAIRED = (
    "unpaired judgements, one response in a row with a label, as KTO takes them, whose loss of single responses no "
    "command here simulates: where a prompt has a good and a bad one, put the two into a row as chosen and rejected "
    '(docs/data.md, "Judgements that are not paired")'
)
_ONE_RESPONSE = (
    *(({said, label}, _UNPAIRED)
      for said in ("completion", "response", "conversations", "messages", "output")
      for label in ("label", "kto_tag")),
    *(({"prompt", said, score}, "one response in a row with a score: give two of a prompt as responses with ratings")
      for said in ("completion", "response", "output") for score in ("score", "rating", "reward")),
    (frozenset({"messages"}), "conversations with one response each, as for supervised tuning"),
    (frozenset({"conversations"}), "conversations with one response each, as for supervised tuning"),
    (frozenset({"instruction", "output"}), "one response to each instruction, as for supervised tuning"),
    (frozenset({"prompt", "completion"}), "one response to each prompt, as for supervised tuning"),
    (frozenset({"text"}), "plain texts"),
)  # fmt: skip
"""Columns of what is no preference data, most telling first."""


def recognise(names: Collection[str]) -> Layout | None:
    """The first known layout whose columns are all there.

    Example:
        >>> recognise(["system", "question", "chosen", "rejected"]).columns.prompt[0].name
        'question'
    """
    held = set(names)
    return next((each for each in LAYOUTS if each.columns.needed | _EXTRA.get(each.name, frozenset()) <= held), None)


def holds_one_response(names: Collection[str]) -> str | None:
    """What data are that hold no pairs, by their columns; None where they are not known."""
    held = set(names)
    return next((what for needs, what in _ONE_RESPONSE if needs <= held), None)


# a mapping to try ----------------------------------------------------------------------------------------------------

PROMPTS = ("prompt", "question", "instruction", "query", "input", "context", "history", "post", "title", "topic")
_GOOD = ("chosen", "good", "better", "best", "preferred", "positive", "win", "accepted", "correct", "true")
_BAD = ("rejected", "bad", "worse", "worst", "dispreferred", "non_preferred", "negative", "lose", "loss", "incorrect",
        "wrong", "false")  # fmt: skip
_WINNERS = ("winner", "preference", "preferred", "label", "choice", "choose", "vote", "annotator", "judge", "better",
            "verdict", "rater", "selected")  # fmt: skip
_RATED = ("rating", "score", "reward")
_RANKED = ("rank",)


def suggest(names: Sequence[str]) -> str | None:
    """A mapping that may fit columns of no known layout; None where they give no hint.

    Example:
        >>> suggest(["post", "response_a", "response_b", "judge"])
        'prompt=post,first=response_a,second=response_b,winner=judge'
    """
    first, second = twins(names)
    prompt = [name for word in PROMPTS for name in names if word in words_of(name) and name not in (first, second)]
    beside = [
        name for name in prompt if words_of(name) & {"input"} and prompt and words_of(prompt[0]) & {"instruction"}
    ]
    head = "+".join(field_text(name) for name in dict.fromkeys([*prompt[:1], *beside])) or "FIELD"
    good = _named(names, _GOOD)
    bad = _named(names, _BAD)
    if good and bad and good != bad:
        return f"prompt={head},chosen={field_text(good)},rejected={field_text(bad)}"
    if first and second:
        scored = [name for name in names if _hits(name, (*_RATED, *_RANKED)) and name not in (first, second)]
        one, two = twins(scored)
        if one and two:
            role = "ranking" if _hits(one, _RANKED) else "ratings"
            pair, rated = (f"{field_text(each)}+{field_text(other)}" for each, other in ((first, second), (one, two)))
            return f"prompt={head},responses={pair},{role}={rated}"
        votes = [name for name in names if _hits(name, _WINNERS) and name not in (first, second, *prompt[:1])]
        winner = "+".join(map(field_text, votes)) or "FIELD"
        return f"prompt={head},first={field_text(first)},second={field_text(second)},winner={winner}"
    several = [name for name in names if _hits(name, ("responses", "completions", "answers", "generations", "outputs",
                                                      "candidates", "replies"))]  # fmt: skip
    if several:
        by = next((name for name in names if _hits(name, (*_RATED, *_RANKED, "ratings", "scores", "ranks"))), "FIELD")
        role = "ranking" if _hits(by, _RANKED) or "rank" in by else "ratings"
        return f"prompt={head},responses={field_text(several[0])},{role}={field_text(by)}"
    return None


def words_of(name: str) -> set[str]:
    """The words of a column's name, in lower case."""
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))


def _hits(name: str, words: Iterable[str]) -> bool:
    return bool(words_of(name) & {*words, *(f"{word}s" for word in words)})


def _named(names: Sequence[str], words: Sequence[str]) -> str | None:
    scores = (*_RATED, *_RANKED, "model", "id", "source", "len", "length", "logps")
    return next((name for word in words for name in names if word in words_of(name) and not _hits(name, scores)), None)


def twins(names: Sequence[str]) -> tuple[str | None, str | None]:
    """Two columns whose names differ by a or b, 0 or 1, 1 or 2, left or right alone; responses before the rest."""
    ends = (("a", "b"), ("1", "2"), ("0", "1"), ("first", "second"), ("left", "right"), ("one", "two"))
    found = []
    for name in names:
        for one, two in ends:
            for begin, end in ((one, two), (one.upper(), two.upper())):
                before = r"\d" if begin.isdigit() else "A-Z" if begin.isupper() else "A-Za-z"
                pattern = rf"(?<![{before}]){begin}(?![{before if begin.isdigit() else 'A-Za-z'}])"
                for match in re.finditer(pattern, name.replace("_", " ")):
                    other = name[: match.start()] + end + name[match.end() :]
                    if other in names and other != name:
                        found.append((name, other))
    likely = ("response", "answer", "output", "completion", "reply", "summary", "text", "argument", "story",
              "generation", "candidate", "translation", "conversation")  # fmt: skip
    found.sort(key=lambda two: next((at for at, word in enumerate(likely) if word in two[0].lower()), len(likely)))
    odd = (*_RATED, *_RANKED, "model", "id")
    best = next((two for two in found if not _hits(two[0], odd)), found[0] if found else None)
    return best if best is not None else (None, None)


def field_text(name: str) -> str:
    """A column's name as `--columns` takes it: in double quotes where it holds a mark of the mapping."""
    return '"' + name.replace('"', '""') + '"' if re.search(r'[.+,=?"]', name) else name


def misspelt(names: Sequence[str]) -> dict[str, str]:
    """Of chosen, rejected and prompt, those that are missing with a column whose name is near."""
    folded = {name.lower().strip(): name for name in reversed(names)}
    found = {}
    for need, cutoff in (("chosen", 0.75), ("rejected", 0.75), ("prompt", 0.8)):
        near = difflib.get_close_matches(need, folded, n=1, cutoff=cutoff)
        if need not in names and near:
            found[need] = folded[near[0]]
    return found
