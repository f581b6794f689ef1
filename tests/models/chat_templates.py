"""Chat templates of every common shape, written for tests, and conversations to try them on."""

from typing import Any

_TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}<|im_end|>\n{% endfor %}"
_OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_CALLS = "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
_THOUGHT = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}"
)

CHAT_TEMPLATES: dict[str, str] = {
    "chatml": _TURNS + _OPEN,
    "chatml, no generation prompt": _TURNS,
    "chatml, no last newline": _TURNS.replace("<|im_end|>\n", "<|im_end|>") + _OPEN,
    "chatml, newlines at the end": _TURNS + "{% if not add_generation_prompt %}\n\n{% endif %}" + _OPEN,
    "chatml with a system of its own": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + _TURNS + _OPEN
    ),
    "brackets, a begin token in every turn": (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] | trim + ' [/INST]'"
        " }}{% elif m['role'] == 'system' %}<<SYS>>{{ m['content'] }}<</SYS>>{% else %}"
        "{{ ' ' + (m['content'] or '') | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "headers, trimmed": (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
        "{{ (m['content'] or '') | trim }}" + _CALLS + "<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "headers, with the date": (
        "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday: {{ strftime_now('%d %b %Y') }}\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}<|eot_id|>"
        "{% for m in messages if m.role != 'system' %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content or '' }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "other names, system merged": (
        "{{ bos_token }}{% set first = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
        "{% for m in messages if m.role != 'system' %}<start_of_turn>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ first if loop.first else '' }}"
        "{{ (m.content or '') | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "system dropped": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% elif m['role'] == 'assistant' %}{{ ' ' + (m['content'] or '') + eos_token }}{% endif %}{% endfor %}"
    ),
    "system in the last question": (
        "{{ bos_token }}{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
        + _THOUGHT
        + "{% for m in messages %}{% if m.role == 'user' %}{% if loop.index0 == ns.last and tools %}[AVAILABLE_TOOLS]"
        "{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}[INST]{{ system + '\n\n' if system and loop.index0 == ns.last"
        " else '' }}{{ m.content }}[/INST]{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]"
        "{% elif m.role == 'assistant' %}{% if m.tool_calls %}[TOOL_CALLS]{{ m.tool_calls | tojson }}{% else %}"
        "{{ m.content }}{% endif %}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "system refused": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + _TURNS + _OPEN
    ),
    "words and colons": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} {% elif m.role == "
        "'assistant' %}ASSISTANT: {{ m.content or '' }}{{ eos_token }}{% else %}{{ m.content }} {% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
    "headings": (
        "{% for m in messages %}### {{ 'Response' if m.role == 'assistant' else 'Instruction' }}:\n{{ m.content or ''}}"
        "\n\n{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
    ),
    "bars": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content or '' }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
    ),
    "a thought is added to the last turn": (
        "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
        + _THOUGHT
        + "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.index0 > ns.last %}"
        "<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ m.content or '' }}"
        + _CALLS
        + "<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    ),
    "a thought is opened by the generation prompt": (
        "{% for m in messages %}{% if m.role == 'assistant' %}<assistant>{{ (m.content or '').split('</think>')[-1] }}"
        "{{ eos_token }}{% else %}<user>{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
    ),
    "a thought is closed by the generation prompt alone": (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] or '' }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant><think></think>{% endif %}"
    ),
    "thoughts are removed": (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ (m.content or '').split('</think>')[-1] | trim }}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    ),
    "thoughts are kept": (
        "{% for m in messages %}<{{ m.role }}>{% if m.thinking %}<think>{{ m.thinking }}</think>{% endif %}"
        "{{ m.content or '' }}</s>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    ),
    "channels": (
        "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}{% if m.reasoning_content %}"
        "<|channel|>analysis<|message|>{{ m.reasoning_content }}<|end|><|start|>assistant{% endif %}<|channel|>final"
        "{% endif %}<|message|>{{ m.content or '' }}{{ '<|return|>' if loop.last else '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    ),
    "contents in parts": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for part in m.content or [] %}{{ part.text }}{% endfor %}{% endif %}"
        + _CALLS
        + "<|im_end|>\n{% endfor %}"
        + _OPEN
    ),
    "variables of the row": (
        "{% if mood is defined %}Mood: {{ mood }}\n{% endif %}{% if tools %}{% for t in tools %}"
        "Tool {{ t.function.name }}\n{% endfor %}{% endif %}{% for m in messages %}{{ m.name or m.role }}: "
        "{{ m.content or '' }}" + _CALLS + "{% if m.weight %} ({{ m.weight }}){% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    ),
    "something after the last turn": (
        "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}</{{ m.role }}>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% else %}\nThe end of {{ messages | length }} turns.{% endif %}"
    ),
    "quoted": (
        "[{% for m in messages %}{{ {'role': m.role, 'content': m.content or ''} | tojson }}{{ ', ' if not loop.last }}"
        "{% endfor %}]"
    ),
    "shouted": "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}{{ eos_token }}\n{% endfor %}",
    "echoed": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}{{ messages[-1].content }}"
        "{{ eos_token }}"
    ),
    "joined": "{% for m in messages %}{{ m.role }}: {{ m.content }}o{{ eos_token }}\n{% endfor %}",
}
"""Name → template."""
HIDDEN = {
    "shouted": (("Yes", "No"), "other words than theirs"),
    "echoed": (("Yes", "No"), "differ in more than the answers"),
    "joined": (("Y", "N"), "its rejected answer joins with what follows"),
}
"""Templates under which one-token answers are not to be found: words to try, and what is said of it."""
MARKS = [
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>",
    "<end_of_turn>", "<think>", "</think>", "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>",
]  # fmt: skip
"""What tokenizers hold as single tokens."""

TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"town": {"type": "string"}}}},
    }
]
_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"town": "X", "hour": 3.5}}}],
}
_RESULT = {"role": "tool", "name": "weather", "content": "cold"}


def turns(*said: tuple[str, str]) -> list[dict[str, Any]]:
    """Messages of role and content."""
    return [{"role": role, "content": content} for role, content in said]


_ASK = turns(("user", "Do you sing?"))
_LONG = turns(("system", "Be kind"), ("user", " Walk? "), ("assistant", "Yes"), ("user", "At night?"))
_USED = [*turns(("system", "Use tools."), ("user", "Is it cold?")), _CALL, _RESULT]
_THINKING = [
    *turns(("user", "Walk?")),
    {"role": "assistant", "content": "<think>\nmaybe\n</think>\n\nYes", "reasoning_content": "rain"},
    *turns(("user", "In the rain?")),
]
_PARTS = [{"role": "user", "content": [{"type": "text", "text": "Do you "}, {"type": "text", "text": "sing?"}]}]
PROMPTS: dict[str, dict[str, Any]] = {
    "one question": {"prompt": _ASK},
    "several turns": {"prompt": _LONG},
    "tool turns": {"prompt": _USED, "tools": TOOLS},
    "tools as text": {"prompt": _ASK, "tools": '[{"type": "function", "function": {"name": "w", "a": null}}]'},
    "no tools": {"prompt": _ASK, "tools": []},
    "arguments": {
        "prompt": _LONG,
        "chat_template_kwargs": {"enable_thinking": False, "mood": "good", "bos_token": "!"},
    },
    "a template of its own": {"prompt": _ASK, "chat_template_kwargs": {"chat_template": CHAT_TEMPLATES["bars"]}},
    "thoughts": {"prompt": _THINKING},
    "keys of its own": {"prompt": [{**_ASK[0], "name": "Ann", "weight": 2}]},
    "parts": {"prompt": _PARTS},
    "an answer begun": {"prompt": [*_ASK, *turns(("assistant", "I think that"))]},
}
"""Kinds of prompt, with what the row holds beside it."""
_CHANGED = {**_CALL, "content": "I look."}
REPLIES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "replies": (turns(("assistant", " Yes, loud ")), turns(("assistant", "No"))),
    "several turns": (
        turns(("assistant", "Never"), ("user", "But why"), ("assistant", "The rain\n")),
        turns(("assistant", "Yes")),
    ),
    "reasoning": (
        [{"role": "assistant", "content": "Sure.", "reasoning_content": "I like to sing."}],
        [{"role": "assistant", "content": "Sure.", "reasoning_content": "No."}],
    ),
    "calls": ([_CALL, _RESULT, *turns(("assistant", "Cold."))], [_CHANGED]),
    "thoughts within": (
        turns(("assistant", "<think>\nI do.\n</think>\n\nYes, I sing.")),
        turns(("assistant", "<think>\nI do not.\n</think>\n\nNever.")),
    ),
}
"""Kinds of responses."""


def talks(kind: str, replies: str, *, implicit: bool) -> list[dict[str, Any]]:
    """Rows in TRL's format: the pair and the same turned round."""
    chosen, rejected = REPLIES[replies]
    found = []
    for first, second in ((chosen, rejected), (rejected, chosen)):
        row = dict(PROMPTS[kind])
        prompt = row.pop("prompt")
        sides = {"chosen": first, "rejected": second}
        if implicit:
            found.append({**row, **{side: [*prompt, *messages] for side, messages in sides.items()}})
        else:
            found.append({**row, "prompt": prompt, **sides})
    return found


def answered(kind: str, words: tuple[str, str] = ("Yes", "No")) -> list[dict[str, Any]]:
    """Rows whose responses are one word."""
    sides = [turns(("assistant", word)) for word in words]
    return [
        {**PROMPTS[kind], "chosen": first, "rejected": second} for first, second in ((sides[0], sides[1]), sides[::-1])
    ]
