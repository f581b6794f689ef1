"""Public layouts rebuilt in miniature, in our own words: each loads, or says the mapping with which it does.

Each is two rows of the columns that its authors give it, and the pairs that they mean.
"""

import json
import re
from pathlib import Path

import pytest

from prefdyn.data.layouts import LAYOUTS, recognise, suggest
from prefdyn.data.loaders import load_dataset
from prefdyn.data.preflight import preflight
from prefdyn.errors import DataError


def said(role, text):
    return {"role": role, "content": text}


def asked(text):
    return [said("user", text)]


TEA, RAIN = "Is tea good?", "Is rain wet?"
PAIRS = [(TEA, "Sure.", "Never."), (RAIN, "Very.", "Hardly.")]
LEFT, RIGHT = ([[p, c], [p, r]] for p, c, r in PAIRS)


def rows(make):
    return [make(*pair) for pair in PAIRS]


MINIATURES = {
    "TRL": rows(lambda p, c, r: {"prompt": p, "chosen": c, "rejected": r}),
    "orca pairs": rows(lambda p, c, r: {"system": "", "question": p, "chosen": c, "rejected": r}),
    "alpaca ranking": rows(lambda p, c, r: {"instruction": p, "input": "", "chosen": c, "rejected": r}),
    "alpaca ranking, old": rows(lambda p, c, r: {"instruction": p, "input": "", "output": [c, r]}),
    "distilabel orca": rows(
        lambda p, c, r: {"system": "", "input": p, "chosen": c, "rejected": r, "generations": [c, r],
                         "rating": [9.0, 2.0], "status": "tie"}
    ),
    "sharegpt ranking": rows(
        lambda p, c, r: {"conversations": [{"from": "human", "value": p}], "chosen": {"from": "gpt", "value": c},
                         "rejected": {"from": "gpt", "value": r}}
    ),
    "Axolotl": rows(
        lambda p, c, r: {"messages": asked(p), "chosen": said("assistant", c), "rejected": said("assistant", r)}
    ),
    "UltraInteract": rows(
        lambda p, c, r: {"id": p[:2], "trajectory": [{"from": "user", "value": p}], "chosen": c, "rejected": r}
    ),
    "ms-swift": rows(
        lambda p, c, r: {"messages": [*asked(p), said("assistant", c)], "rejected_response": r}
    ),
    "ms-swift, messages": rows(
        lambda p, c, r: {"messages": [*asked(p), said("assistant", c)],
                         "rejected_messages": [*asked(p), said("assistant", r)]}
    ),
    "ms-swift, query": rows(lambda p, c, r: {"query": p, "response": c, "rejected_response": r, "history": []}),
    "OpenAI": rows(
        lambda p, c, r: {"input": {"messages": asked(p)}, "preferred_output": [said("assistant", c)],
                         "non_preferred_output": [said("assistant", r)]}
    ),
    "argilla, two responses": rows(
        lambda p, c, r: {"instruction": p, "chosen_response": c, "rejected_response": r, "chosen_rating": 5.0}
    ),
    "UltraFeedback": rows(
        lambda p, c, r: {
            "source": "made up", "instruction": p, "models": ["x", "y", "z"],
            "completions": [{"model": m, "response": t, "overall_score": s, "critique": "-"}
                            for m, t, s in (("x", "So so.", 6.0), ("y", c, 8.5), ("z", r, 2.0))],
        }
    ),
    "UltraFeedback, binarized": rows(
        lambda p, c, r: {"prompt": p, "prompt_id": p[:3], "messages": [*asked(p), said("assistant", c)],
                         "chosen": [*asked(p), said("assistant", c)], "rejected": [*asked(p), said("assistant", r)],
                         "score_chosen": 8.0, "score_rejected": 3.0}
    ),
    "distilabel": rows(
        lambda p, c, r: {"instruction": p, "generations": [r, "So so.", c], "ratings": [1, 3, 5], "model_name": "m"}
    ),
    "distilabel, PairRM": rows(
        lambda p, c, r: {"input": p, "candidates": [r, c], "ranks": [2, 1], "ranked_candidates": [c, r]}
    ),
    "distilabel, Prometheus": [
        {"instruction": TEA, "generations": ["Sure.", "Never."], "feedback": "-", "result": "A", "model_name": "m"},
        {"instruction": RAIN, "generations": ["Hardly.", "Very."], "feedback": "-", "result": "B", "model_name": "m"},
    ],
    "distilabel, formatted for DPO": rows(
        lambda p, c, r: {"instruction": p, "generations": [r, c], "ratings": [1, 5], "prompt": p, "prompt_id": p[:3],
                         "chosen": [*asked(p), said("assistant", c)], "chosen_rating": 5, "chosen_model": "m",
                         "rejected": [*asked(p), said("assistant", r)], "rejected_rating": 1, "rejected_model": "m",
                         "distilabel_metadata": {"raw_output_ultra_feedback_0": "-"}}
    ),
    "reward-bench": rows(
        lambda p, c, r: {"prompt": p, "chosen": c, "rejected": r, "chosen_model": "x", "rejected_model": "y",
                         "subset": "chat", "id": len(p)}
    ),
    "reward-bench 2": rows(lambda p, c, r: {"id": p, "prompt": p, "chosen": [c], "rejected": [r], "subset": "s"}),
    "Nectar": rows(
        lambda p, c, r: {"prompt": p, "answers": [{"answer": r, "rank": 3.0}, {"answer": c, "rank": 1.0},
                                                  {"answer": "So so.", "rank": 2.0}], "turns": 1}
    ),
    "Stack Exchange, scored": rows(
        lambda p, c, r: {"qid": 1, "question": p, "answers": [{"text": r, "pm_score": 0}, {"text": c, "pm_score": 4}]}
    ),
    "Stack Exchange, paired": rows(lambda p, c, r: {"qid": 1, "question": p, "response_j": c, "response_k": r}),
    "PKU-SafeRLHF": [
        {"prompt": TEA, "response_0": "Sure.", "response_1": "Never.", "better_response_id": 0},
        {"prompt": RAIN, "response_0": "Hardly.", "response_1": "Very.", "better_response_id": 1},
    ],
    "SHP": [
        {"history": TEA, "human_ref_A": "Sure.", "human_ref_B": "Never.", "labels": 1, "domain": "askteas"},
        {"history": RAIN, "human_ref_A": "Hardly.", "human_ref_B": "Very.", "labels": 0, "domain": "askteas"},
    ],
    "HelpSteer2": [
        {"prompt": TEA, "response_1": "Sure.", "response_2": "Never.", "preference_strength": -3},
        {"prompt": RAIN, "response_1": "Hardly.", "response_2": "Very.", "preference_strength": 1},
    ],
    "HelpSteer3": [
        {"domain": "general", "context": asked(TEA), "response1": "Sure.", "response2": "Never.",
         "overall_preference": -2},
        {"domain": "code", "context": asked(RAIN), "response1": "Hardly.", "response2": "Very.",
         "overall_preference": 1},
    ],
    "WebGPT": rows(
        lambda p, c, r: {"question": {"full_text": p, "dataset": "eli5"}, "answer_0": r, "answer_1": c,
                         "score_0": -0.5, "score_1": 0.5}
    ),
    "Summarize from feedback": [
        {"info": {"post": TEA}, "summaries": [{"text": "Sure."}, {"text": "Never."}], "choice": 0, "worker": "w"},
        {"info": {"post": RAIN}, "summaries": [{"text": "Hardly."}, {"text": "Very."}], "choice": 1, "worker": "w"},
    ],
    "Chatbot Arena": [
        {"question_id": 1, "model_a": "x", "model_b": "y", "winner": "model_a",
         "conversation_a": [*asked(TEA), said("assistant", "Sure.")],
         "conversation_b": [*asked(TEA), said("assistant", "Never.")]},
        {"question_id": 2, "model_a": "x", "model_b": "y", "winner": "model_b",
         "conversation_a": [*asked(RAIN), said("assistant", "Hardly.")],
         "conversation_b": [*asked(RAIN), said("assistant", "Very.")]},
    ],
    "Chatbot Arena, turns": rows(
        lambda p, c, r: {"id": 3, "prompt": json.dumps([p]), "response_a": json.dumps([r]),
                         "response_b": json.dumps([c]), "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
    ),
    "Preference Collection": [
        {"orig_instruction": TEA, "orig_response_A": "Sure.", "orig_response_B": "Never.", "orig_preference": "A"},
        {"orig_instruction": RAIN, "orig_response_A": "Hardly.", "orig_response_B": "Very.", "orig_preference": "B"},
    ],
    "AlpacaEval": [
        {"instruction": TEA, "output_1": "Sure.", "output_2": "Never.", "preference": 1.0, "annotator": "x"},
        {"instruction": RAIN, "output_1": "Hardly.", "output_2": "Very.", "preference": 2.0, "annotator": "x"},
    ],
}  # fmt: skip


def pairs(data):
    return [(row["prompt"].removeprefix("user: "), row["chosen"], row["rejected"]) for row in data.to_rows()]


@pytest.mark.parametrize("name", MINIATURES)
def test_a_public_layout_loads_without_a_flag(tmp_path, name):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in MINIATURES[name]))
    data = load_dataset(path)
    assert pairs(data) == PAIRS
    assert data.left_out == ()
    assert data.readings[0].ties == 0
    told = [finding.says for finding in preflight(data) if finding.code == "layout"]
    assert bool(told) == (data.readings[0].layout is not None)


ELSE = {
    "Argilla fields": (
        [{"text": TEA, "response-1": "Sure.", "response-2": "Never.", "choose-best": [{"value": 1, "user_id": "u"}]},
         {"text": RAIN, "response-1": "Hardly.", "response-2": "Very.", "choose-best": [{"value": 2, "user_id": "u"}]}],
        {"prompt": "text", "winner": "choose-best.value"},
    ),
    "a judge": (
        [{"post": TEA, "reply_a": "Sure.", "reply_b": "Never.", "judge": "a"},
         {"post": RAIN, "reply_a": "Hardly.", "reply_b": "Very.", "judge": "b"}],
        {},
    ),
    "good and bad": (rows(lambda p, c, r: {"query": p, "good": c, "bad": r}), {}),
    "preferred and dispreferred": (
        rows(lambda p, c, r: {"prompt": p, "preferred": c, "dispreferred": r}), {}
    ),
    "two scores": (
        rows(lambda p, c, r: {"topic": p, "textA": r, "textB": c, "scoreA": 0.1, "scoreB": 0.9}), {}
    ),
    "candidates": (rows(lambda p, c, r: {"question": p, "candidates": [r, c], "scores": [1, 2]}), {}),
    "candidates, ranked": (rows(lambda p, c, r: {"question": p, "candidates": [r, c], "ranks": [2, 1]}), {}),
    "three annotators": (
        [{"instruction": TEA, "input": "", "answer1": "Sure.", "answer2": "Never.", "rater1": 1, "rater2": 1},
         {"instruction": RAIN, "input": "", "answer1": "Hardly.", "answer2": "Very.", "rater1": 2, "rater2": 2}],
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ELSE)
def test_a_layout_that_is_not_known_says_the_mapping_that_reads_it(name):
    held, changes = ELSE[name]
    with pytest.raises(DataError) as caught:
        load_dataset(held)
    message = str(caught.value)
    assert "\n" not in message
    found = re.search(r"say which is which, such as columns (\S+|'.*')$", message)
    assert found is not None, message
    mapping = dict(piece.split("=") for piece in found[1].strip("'").split(","))
    assert pairs(load_dataset(held, columns={**mapping, **changes})) == PAIRS


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"prompt": "x", "completion": "y", "label": True}, "these look like unpaired judgements"),
        ({"prompt": "x", "completion": "y", "label": True}, "put the two into a row as chosen and rejected"),
        ({"conversations": [said("user", "x")], "label": False}, "as KTO takes them"),
        ({"prompt": "x", "response": "y", "score": 4}, "one response in a row with a score"),
        (
            {"instruction": "x", "completions": [{"response": "a", "score": 1}, {"response": "b", "score": 2}]},
            "there is no 'overall_score', only 'response', 'score': name the rating with columns",
        ),
        ({"messages": [said("user", "x")]}, "these look like conversations with one response each"),
        ({"instruction": "x", "input": "", "output": "y"}, "these look like one response to each instruction"),
        ({"text": "x"}, "these look like plain texts"),
        ({"x": "x", "y": 5}, "say which is which with columns prompt=FIELD,chosen=FIELD,rejected=FIELD"),
    ],
)
def test_what_holds_no_pairs_is_refused_by_what_it_is(columns, says):
    with pytest.raises(DataError) as caught:
        load_dataset([columns])
    assert says in str(caught.value)


@pytest.mark.parametrize("prompt", ["prompt", "instruction", "question"])
@pytest.mark.parametrize("names", [("completions", "ratings"), ("responses", "scores")])
def test_completions_with_ratings_are_read_best_against_worst(prompt, names):
    row = {prompt: "Which?", names[0]: ["middling", "good", "bad"], names[1]: [3, 5, 1]}
    found = load_dataset([row]).table.to_pylist()
    assert [(each["prompt"], each["chosen"], each["rejected"]) for each in found] == [("Which?", "good", "bad")]


# what must not be read as something else -----------------------------------------------------------------------------


def test_columns_of_trl_win_over_all_others():
    assert all(layout.name != "TRL" or layout.columns.chosen[0].name == "chosen" for layout in LAYOUTS)
    found = recognise(["prompt", "chosen", "rejected", "question", "messages", "instruction", "conversations"])
    assert found is not None
    assert found.name == "TRL"


def test_texts_that_look_nearly_like_messages_stay_texts():
    rows_ = [{"prompt": "List: [1, 2]", "chosen": "[1, 2]", "rejected": '["role", "content"]'},
             {"prompt": "[{x}]", "chosen": "[{'name': 'x'}]", "rejected": "[]"}]  # fmt: skip
    data = load_dataset(rows_)
    assert data.conversational == 0
    assert pairs(data) == [(row["prompt"], row["chosen"], row["rejected"]) for row in rows_]


def test_messages_written_as_text_that_cannot_be_read_are_named():
    row = {"prompt": "p", "chosen": "[{'role': 'assistant', 'content': 'it's'}]", "rejected": "x"}
    with pytest.raises(DataError, match="field 'chosen': looks like messages written as text, but cannot be read"):
        load_dataset([row])


def test_arrays_as_numpy_writes_them_into_csv_are_messages(tmp_path):
    path = tmp_path / "x.csv"
    talk = "\"[{'role': 'user', 'content': 'Hi'}\n {'role': 'assistant', 'content': '%s'}]\""
    path.write_text(f"chosen,rejected\n{talk % 'Yo'},{talk % 'No'}\n")
    assert pairs(load_dataset(path)) == [("Hi", "Yo", "No")]


def test_a_system_text_is_read_where_trl_reads_nothing_and_told_where_it_does():
    known = load_dataset([{"system": "Be kind.", "question": "Hi?", "chosen": "Yo", "rejected": "No"}])
    assert known.to_rows()[0]["prompt"] == "system: Be kind.\n\nuser: Hi?"
    rows_ = [{"system": "Be kind.", "prompt": "Hi?", "chosen": "Yo", "rejected": "No"}]
    trl = load_dataset(rows_)
    assert trl.to_rows()[0]["prompt"] == "Hi?"
    (told,) = [finding.says for finding in preflight(trl) if finding.code == "reading"]
    mapping = told.split("--columns ")[1].rstrip(".")
    assert load_dataset(rows_, columns=mapping).to_rows()[0]["prompt"] == "system: Be kind.\n\nuser: Hi?"
    without = load_dataset([{**rows_[0], "system": ""}])
    assert not [finding for finding in preflight(without) if finding.code == "reading"]


def test_scores_that_disagree_with_the_labels_are_told():
    given = [(8, 3), (3, 8), (5, 5), (None, 1)]
    rows_ = [
        {"prompt": f"p{i}", "chosen": "a", "rejected": "b", "score_chosen": c, "score_rejected": r}
        for i, (c, r) in enumerate(given)
    ]
    found = {finding.code: finding.count for finding in preflight(load_dataset(rows_))}
    assert (found["scores_against"], found["scores_equal"]) == (1, 1)
    fine = {finding.code for finding in preflight(load_dataset(rows_[:1]))}
    assert not {"scores_against", "scores_equal"} & fine


def test_an_implicit_prompt_that_is_empty_is_no_matter_of_course():
    rows_ = [{"title": f"t{i}", "chosen": f"Yes {i}", "rejected": f"No {i}"} for i in range(4)]
    with pytest.raises(DataError, match="in 4 of 4 pairs chosen and rejected share no beginning") as caught:
        load_dataset(rows_)
    assert "name its column (there are 'title') with columns prompt=FIELD,chosen=chosen,rejected=rejected" in str(
        caught.value
    )
    assert load_dataset(rows_, columns="prompt=title,chosen=chosen,rejected=rejected").to_rows()[0]["prompt"] == "t0"
    shared = [{"title": "t", "chosen": f"Ask {i}: yes", "rejected": f"Ask {i}: no"} for i in range(4)]
    assert load_dataset(shared).to_rows()[0]["prompt"] == "Ask 0:"
    none = load_dataset(rows_, columns="chosen=chosen,rejected=rejected")
    assert ("empty_prompt", "problem") in {(finding.code, finding.severity) for finding in preflight(none)}


def test_several_turns_of_two_speakers_are_put_together():
    row = {"prompt": '["Hi?", "And now?"]', "response_a": '["Yo", "Bye"]', "response_b": '["No", "Out"]',
           "winner_model_a": 1, "winner_model_b": 0}  # fmt: skip
    talk = load_dataset([row]).to_rows()[0]["conversation"]
    assert [turn["content"] for turn in talk["chosen"]] == ["Yo", "And now?", "Bye"]
    assert [turn["role"] for turn in talk["rejected"]] == ["assistant", "user", "assistant"]


def test_suggestions_quote_names_that_need_it():
    assert suggest(["the prompt", "good.one", "bad.one"]) == 'prompt=the prompt,chosen="good.one",rejected="bad.one"'


def test_a_miniature_holds_no_text_of_others():
    words = {word for name in MINIATURES for row in MINIATURES[name] for word in re.findall(r"\w+", json.dumps(row))}
    assert len(words) < 200
    assert Path(__file__).stat().st_size < 40_000
