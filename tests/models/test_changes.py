"""What a template changes is told with a count and an example, and of a template that changes nothing nothing is."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.models.load import load_model
from prefdyn.models.token_pairs import tokenize_pairs
from tests.models.chat_templates import CHAT_TEMPLATES, PROMPTS, REPLIES, TOOLS, talks, turns
from tests.models.conftest import byte_tokenizer, make_model

CLOCK = "{{ strftime_now('%H:%M:%S') }}" + CHAT_TEMPLATES["chatml"]
CHANGING = {
    "from one second to the next": CLOCK,
    "from one day or hour to the next": CHAT_TEMPLATES["headers, with the date"],
    "each time, at random": "Draw: {{ range(99999) | random }}" + CHAT_TEMPLATES["chatml"],
}
SYSTEM = [
    {"prompt": turns(("system", f"Always say {word}."), ("user", "Tea?")), **sides, "group": word}
    for word, sides in (
        ("no", {"chosen": turns(("assistant", "No, no.")), "rejected": turns(("assistant", "Yes, yes."))}),
        ("yes", {"chosen": turns(("assistant", "Yes, yes.")), "rejected": turns(("assistant", "No, no."))}),
    )
]
WEATHER = {**SYSTEM[0], "tools": TOOLS}


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return load_model(str(make_model(tmp_path_factory.mktemp("m") / "m", "llama", byte_tokenizer())))


def told(lm: Any, template: str, rows: list[dict[str, Any]], *, eos: bool | None = True) -> list[str]:
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.chat_template = CHAT_TEMPLATES.get(template, template)
    lm = replace(lm, tokenizer=tokenizer, context=None)
    return list(tokenize_pairs(load_dataset(rows), lm, eos=eos).warnings)


@pytest.mark.parametrize("kind", ["one question", "several turns", "tool turns", "arguments"])
def test_a_template_that_writes_everything_is_told_of_nothing(lm, kind):
    """Roles, order, tools, calls and arguments: all there, so nothing is said."""
    template = (
        "{{ tools | tojson }}{{ enable_thinking }}{{ mood }}{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
        "{{ m.reasoning_content or '' }}{{ m.tool_calls | tojson if m.tool_calls }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    ).replace("{{ mood }}", "{{ mood }}{# bos_token #}")
    for replies in REPLIES:
        assert told(lm, template, talks(kind, replies, implicit=False)) == []


def test_dropped_system_messages_are_told_and_make_prompts_equal(lm):
    found = told(lm, "system dropped", SYSTEM)
    assert found[0].startswith(
        "In 2 of 2 conversations the chat template drops or rewrites the content of 'system' messages: 'Always say no.'"
        " (the first, pair 'row:1'"
    )
    assert found[1].startswith(
        "In 2 of 2 conversations the chat template writes prompts that differ as the same text: those of 'row:1' "
        "(rows:1) and 'row:2' (rows:2) (the first) are both '<s>[INST] Tea? [/INST]'; 2 of these "
        "pairs then prefer what another rejects."
    )
    assert told(lm, "chatml", SYSTEM) == []


def test_equal_prompts_of_equal_conversations_are_no_finding(lm):
    assert told(lm, "chatml", [SYSTEM[0], {**SYSTEM[0], "group": "other"}]) == []


def test_a_moved_system_message_is_told(lm):
    rows = [
        {**row, "prompt": [row["prompt"][0], *turns(("user", "Hi"), ("assistant", "Hey")), row["prompt"][1]]}
        for row in SYSTEM
    ]
    (found,) = told(lm, "system in the last question", rows)
    assert found.startswith(
        "In 2 of 2 conversations the chat template moves the content of 'system' messages: 'Always say no.'"
    )
    assert told(lm, "system in the last question", SYSTEM) == []


def test_thoughts_that_are_cut_off_are_told(lm):
    rows = talks("one question", "thoughts within", implicit=False)
    (found,) = told(lm, "thoughts are removed", rows)
    assert "writes only a part of the content of 'assistant' messages: '<think>" in found
    assert told(lm, "thoughts are kept", rows) == []


def test_reasoning_and_calls_that_are_not_read_are_told(lm):
    (found,) = told(
        lm,
        "thoughts are removed",
        [
            {
                "prompt": turns(("user", "Tea?")),
                "chosen": [{**turns(("assistant", "No"))[0], "reasoning": "I am cold."}],
                "rejected": turns(("assistant", "Yes")),
            }
        ],
    )
    assert "drops or rewrites the reasoning of 'assistant' messages: 'I am cold.'" in found
    found = told(lm, "chatml", talks("tool turns", "replies", implicit=False))
    assert "drops or rewrites the tool_calls of 'assistant' messages: 'weather'" in found[0]
    assert "drops the tools: 'weather'" in found[1]


def test_arguments_that_no_template_reads_are_told(lm):
    rows = [{**SYSTEM[0], "chat_template_kwargs": {"mood": "good"}}]
    (found,) = told(lm, "chatml", rows)
    assert "does not read the argument 'mood' of chat_template_kwargs" in found
    assert told(lm, "{{ mood }}" + CHAT_TEMPLATES["chatml"], rows) == []


def test_a_prompt_that_ends_with_the_assistant_is_told_where_it_is_closed(lm):
    rows = talks("an answer begun", "replies", implicit=False)
    (found,) = told(lm, "chatml", rows)
    assert "the prompt ends with words of the assistant" in found
    assert "go on from 'I think that'" in found
    assert told(lm, "{% for m in messages %}{{ m.content }}{% endfor %}", rows) == []


@pytest.mark.parametrize("when", CHANGING)
def test_text_that_changes_with_the_time_is_told(lm, when):
    found = [text for text in told(lm, CHANGING[when], SYSTEM) if "other text" in text]
    assert len(found) == 1
    assert f"writes other text {when}, in 2 of 2 conversations" in found[0]
    assert not [text for text in told(lm, "{# random #}" + CHAT_TEMPLATES["chatml"], SYSTEM) if "other text" in text]


def test_one_dataset_is_rendered_at_one_moment(lm):
    """So that a prompt and its responses agree, whatever second it is when each is rendered."""
    rows = [{**SYSTEM[0], "prompt": turns(("user", f"Tea {number}?"))} for number in range(600)]
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.chat_template = CLOCK.replace("%S", "%S.%f")
    found = tokenize_pairs(load_dataset(rows), replace(lm, tokenizer=tokenizer), eos=True)
    assert len({ids[:10] for ids in found.prompts}) == 1
    assert min(map(len, found.prompts)) > 20


def test_a_begin_token_that_stands_twice_is_told(lm):
    rows = [{"prompt": "<s>Tea?", "chosen": " Yes, please", "rejected": " No, thanks"}]
    (found,) = told(lm, "chatml", rows)
    assert found.startswith("In 1 of 1 pairs the begin token '<s>' stands twice, once in the text itself")
    (found,) = told(lm, "chatml", [{**rows[0], "chosen": " Yes", "rejected": " No"}], eos=None)
    assert "begin token" in found
    assert told(lm, "chatml", [{**rows[0], "prompt": "Tea?"}]) == []


def test_an_end_token_that_stands_twice_is_told(lm):
    rows = [{"prompt": "Tea?", "chosen": " Yes</s></s>", "rejected": " No"}]
    (found,) = told(lm, "chatml", rows)
    assert found.startswith("1 responses end with the end token '</s>' twice")
    assert told(lm, "chatml", [{**rows[0], "chosen": " Yes</s>"}]) == []


def test_every_template_and_conversation_can_be_looked_at(lm):
    """No content, no calls, contents in parts: nothing that a row may hold stops the look."""
    for template in ("contents in parts", "quoted", "channels"):
        for kind in PROMPTS:
            told(lm, template, talks(kind, "replies", implicit=False))
