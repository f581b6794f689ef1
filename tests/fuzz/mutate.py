"""Ways in which a file goes wrong: bytes flipped, cut, doubled or put in, and JSON that is not what was written."""

import json
from random import Random
from typing import Any

FRAGMENTS = [
    b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xc3", b"\xed\xa0\x80", b"\r\n", b"\n", b"\n\n", b"\r", b'"', b"'",
    b",",
    b"{", b"}", b"[", b"]", b":", b"\\", b"\\u0000", b"\\ud800", b"\x1b[31m", b"\xe2\x80\xae", b"\xe2\x80\x8b",
    b"\xc2\xa0",
    b"NaN", b"-Infinity", b"1e999", b"null", b"true", b"9" * 5000, b"[" * 3000, b"{\"a\":" * 2000, b"\xf0\x9f\x98\x80",
    b"prompt", b"chosen", b"=1+1", b"\t", b"!!python/object", b"&a ", b"*a", b"<<: ", b"---\n", b"% ", b"\xc2\x85",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e308, float("nan"), float("inf"), 10**30, 10**400, "", " ", "\n", "x", "\0",
    "\u202ea",
    "\ud800", "=1", "a,b", "🙂", "train", "test", [], {}, [None], [[]], {"a": 1}, ["x"], "y" * 300,
    [{"role": "user", "content": "Hi"}], [{"role": "user"}], [{"role": 5, "content": "x"}],
    {"role": "user", "content": "x"},
    [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], [{"role": "assistant", "content": None}],
]  # fmt: skip


def spoilt(raw: bytes, rng: Random) -> bytes:
    """The bytes after one to three accidents."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        raw = rng.choice((_flipped, _flipped, _cut, _doubled, _put_in, _put_in, _left_out))(raw, rng)
    return raw


def _place(raw: bytes, rng: Random) -> int:
    return rng.randrange(len(raw) + 1)


def _flipped(raw: bytes, rng: Random) -> bytes:
    if not raw:
        return raw
    at = rng.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]


def _cut(raw: bytes, rng: Random) -> bytes:
    return raw[: _place(raw, rng)]


def _doubled(raw: bytes, rng: Random) -> bytes:
    low, high = sorted((_place(raw, rng), _place(raw, rng)))
    return raw[:high] + raw[low:]


def _put_in(raw: bytes, rng: Random) -> bytes:
    at = _place(raw, rng)
    return raw[:at] + rng.choice(FRAGMENTS) + raw[at:]


def _left_out(raw: bytes, rng: Random) -> bytes:
    low = _place(raw, rng)
    return raw[:low] + raw[low + rng.randrange(1, 40) :]


def places(held: Any, at: tuple = ()) -> list[tuple]:
    """Every place inside a value, as the keys that lead to it."""
    inner = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    return [found for key, value in inner for found in [(*at, key), *places(value, (*at, key))]]


def changed(held: Any, rng: Random) -> Any:
    """A copy in which one place is gone, of another type, deep, doubled, or under another name."""
    held = json.loads(json.dumps(held))
    every = places(held)
    if not every:
        return rng.choice(VALUES)
    path = rng.choice(every)
    owner = held
    for key in path[:-1]:
        owner = owner[key]
    key = path[-1]
    how = rng.randrange(6)
    if how == 0:
        del owner[key]
    elif how == 1 and isinstance(owner, dict):
        owner[rng.choice(["", "chosen ", "Chosen", "id", "weight", "group", "split", "prompt", "\0", "a\nb"])] = (
            owner.pop(key)
        )
    elif how == 2:
        deep: Any = owner[key]
        for _ in range(rng.choice((1, 5, 99, 101, 200))):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        owner[key] = deep
    elif how == 3 and isinstance(owner, list):
        owner.insert(key, owner[key])
    else:
        owner[key] = rng.choice(VALUES)
    return held


def json_text(held: Any, rng: Random) -> str:
    """A value as JSON, at times with a key twice, with a number without end, or over several lines."""
    text = json.dumps(held, ensure_ascii=rng.random() < 0.5, indent=1 if rng.random() < 0.1 else None)
    if rng.random() < 0.05 and text.startswith("{"):
        first = text[1:].partition(":")[0].strip()
        text = text[:-1] + f", {first}: 1}}" if first else text
    if rng.random() < 0.03:
        text = text.replace(": ", ": " + "9" * 5000 + ", " + '"more": ', 1)
    return text
