"""Chat templates that never end or build gigabytes are stopped; any other gives what the library gives."""

import resource
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.errors import ModelError
from prefdyn.models import rendering, texts
from prefdyn.models.load import load_model
from prefdyn.models.rendering import RenderingError, limited
from prefdyn.models.texts import RenderedTexts
from tests.models.conftest import byte_tokenizer, make_model

TALK = [{"role": "user", "content": "Do you sing?"}, {"role": "assistant", "content": "Never."}]
ENDLESS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ lipsum(n=99999) }}",
]
LARGE = [
    "{{ 'a' * 10**10 }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x|length }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '{:>9999999999}'.format(1) }}",
]


def render(template: str) -> str:
    """One conversation under a template."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with limited(tokenizer) as rendered:
        return rendered(TALK, add_generation_prompt=False)


def in_main(work: Callable[[], str]) -> str:
    return work()


def in_thread(work: Callable[[], str]) -> str:
    """The same outside the main thread."""
    found: list[Any] = []

    def catching() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=catching)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


@pytest.fixture(params=[in_main, in_thread])
def run(request) -> Any:
    return request.param


@pytest.fixture
def hurried(monkeypatch):
    """A second is enough to tell that a template is not done."""
    monkeypatch.setattr(rendering, "SECONDS", 1.0)


def state() -> tuple[Any, ...]:
    """What the limits are made of, as the process has it."""
    delay, interval = signal.getitimer(signal.ITIMER_REAL)
    return signal.getsignal(signal.SIGALRM), delay == 0, interval, resource.getrlimit(resource.RLIMIT_AS)


@pytest.mark.thorough
@pytest.mark.parametrize("template", ENDLESS)
def test_a_template_that_does_not_end_is_stopped(run, hurried, template):
    before, started = state(), time.monotonic()
    with pytest.raises(RenderingError, match=r"is not done after \d seconds|needs more than 1 GiB of memory"):
        run(lambda: render(template))
    assert time.monotonic() - started < 20
    assert state() == before


@pytest.mark.thorough
@pytest.mark.parametrize("template", LARGE)
@pytest.mark.skipif(rendering._taken() is None, reason="the system does not say how much memory a process takes")
def test_a_template_that_builds_gigabytes_is_stopped(run, template):
    before = state()
    with pytest.raises(RenderingError, match="needs more than 1 GiB of memory"):
        run(lambda: render(template))
    assert state() == before
    assert run(lambda: render("fine")) == "fine"


def test_an_operation_of_its_own_length_is_stopped(hurried):
    """One power of a large number; the alarm reaches into it, where there is one."""
    with pytest.raises(RenderingError, match="is not done after"):
        render("{{ 10**(10**9) }}")


def test_a_rendering_much_longer_than_its_conversation_is_refused(run):
    """More than a million characters and a hundred for each given; either alone is taken."""
    with pytest.raises(RenderingError, match=r"makes 2,000,000 characters of 31, more than 100 times as many"):
        run(lambda: render("{{ 'x' * 2000000 }}"))
    assert len(run(lambda: render("{{ 'x' * 900000 }}"))) == 900_000
    tokenizer = byte_tokenizer(chat=True)
    with limited(tokenizer) as rendered:
        assert len(rendered([{"role": "user", "content": "x" * 3_000_000}], add_generation_prompt=False)) > 3_000_000


def test_an_ordinary_template_gives_what_the_library_gives(run):
    tokenizer = byte_tokenizer(chat=True)

    def both() -> str:
        with limited(tokenizer) as rendered:
            for ask in (True, False):
                theirs = tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=ask)
                assert rendered(TALK, add_generation_prompt=ask) == theirs
        return "done"

    assert run(both) == "done"


def test_what_a_template_raises_is_raised(run):
    """An error of its own, and an endless recursion."""
    with pytest.raises(Exception, match="no system turns"):
        run(lambda: render("{{ raise_exception('no system turns') }}"))
    with pytest.raises(RecursionError):
        run(lambda: render("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"))


def test_an_alarm_that_was_set_before_rings_after(monkeypatch):
    """And its handler is put back."""
    rang: list[int] = []
    old = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        assert render("fine") == "fine"
        assert not rang
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.3
        time.sleep(0.4)
        assert rang == [1]
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        tokenizer = byte_tokenizer(chat=True)
        with limited(tokenizer):
            time.sleep(0.2)
        time.sleep(0.1)
        assert rang == [1, 1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_a_lower_limit_of_the_user_holds():
    """Ours is not put above it, and it is there afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = rendering._taken()
    assert taken is not None
    lower = taken + (1 << 29)
    resource.setrlimit(resource.RLIMIT_AS, (lower, hard))
    try:
        with limited(byte_tokenizer(chat=True)):
            assert resource.getrlimit(resource.RLIMIT_AS)[0] == lower
        assert resource.getrlimit(resource.RLIMIT_AS) == (lower, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_where_memory_cannot_be_limited_the_rest_is(monkeypatch, hurried):
    """No module `resource`, or no word of how much is taken."""
    monkeypatch.setattr(rendering, "_taken", lambda: None)
    with pytest.raises(RenderingError, match="is not done after"):
        render(ENDLESS[0])
    monkeypatch.undo()
    monkeypatch.setattr(rendering, "resource", None)
    assert render("fine") == "fine"


# in a dataset --------------------------------------------------------------------------------------------------------


def talks(count: int = 40) -> PreferenceDataset:
    """Conversations, numbered."""
    kept = [
        {
            "prompt": [{"role": "user", "content": f"{at}: do you sing"}],
            "chosen": [{"role": "assistant", "content": "never"}],
            "rejected": [{"role": "assistant", "content": "at night"}],
        }
        for at in range(count)
    ]
    rows = [
        {"prompt": "x", "chosen": "y", "rejected": "z", "id": f"pair-{at}", "conversation": one}
        for at, one in enumerate(kept)
    ]
    return PreferenceDataset.from_rows(rows, name="talks")


@pytest.fixture
def chat(tmp_path):
    """A function: a model under a template."""
    folder = make_model(tmp_path / "chat", "llama", byte_tokenizer(chat=True))

    def model(template: str) -> Any:
        (folder / "chat_template.jinja").write_text(template)
        return load_model(str(folder))

    return model


def read_all(lm: Any, data: PreferenceDataset) -> list[str]:
    found = RenderedTexts(data, lm)
    return [text for row in range(len(data)) for text in (found.prompt(row), found.whole(row, "rejected"))]


def test_a_row_may_bring_the_template_that_the_tokenizer_lacks(tmp_path):
    """One that does not is refused by name."""
    lm = load_model(str(make_model(tmp_path / "plain", "llama", byte_tokenizer())))
    talk = {"prompt": [{"role": "user", "content": "Hi"}]} | {
        side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")
    }
    own = talk | {"chat_template_kwargs": {"chat_template": HARMLESS}}
    assert read_all(lm, load_dataset([own])) == ["Hi", "Hirejected"]
    with pytest.raises(
        ModelError, match=r"'row:2' .* is a conversation, but the tokenizer of plain has no chat template"
    ):
        RenderedTexts(load_dataset([own, talk]), lm)


HARMLESS = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def at_pair_17(template: str) -> str:
    """A template that does this at one pair, and nothing at the others."""
    return f"{{% if '17:' in messages[0]['content'] %}}{template}{{% endif %}}{HARMLESS}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (ENDLESS[0], "is not done after 1 seconds"),
        (LARGE[0], "needs more than 1 GiB of memory"),
        ("{{ 'x' * 2000000 }}", "makes 2,000,015 characters of 19, more than 100 times as many"),
    ],
)
def test_the_model_the_limit_and_the_pair_are_named(chat, hurried, template, says):
    """And the file to correct. Only one pair of forty has it."""
    with pytest.raises(ModelError) as caught:
        read_all(chat(at_pair_17(template)), talks())
    said = str(caught.value)
    assert said.startswith(f"the chat template of chat {says}")
    assert "at pair 'pair-17' (talks:18), so it was stopped; correct" in said
    assert "chat_template.jinja, or use another model" in said
    assert len(read_all(chat(at_pair_17("")), talks())) == 80


def test_all_pairs_together_have_a_limit(chat, monkeypatch):
    """Each below its own."""
    monkeypatch.setattr(texts, "TOTAL", 100_000)
    long = chat("{{ 'x' * 5000 }}" + HARMLESS)
    with pytest.raises(ModelError, match=r"makes 10\d,\d{3} characters of \d+ in all pairs so far at pair 'pair-6'"):
        read_all(long, talks())
    monkeypatch.setattr(texts, "RATIO", 10_000)
    assert len(read_all(long, talks())) == 80


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_syntax_error_names_its_line_and_file(chat, tmp_path, name):
    """Wherever the template is written."""
    lm = chat("one\n{% for x in %}")
    if name == "tokenizer_config.json":
        path = tmp_path / "chat" / "chat_template.jinja"
        path.unlink()
    with pytest.raises(ModelError, match=rf"the chat template of chat cannot be read \(line 2: .*{name}, or use"):
        read_all(lm, talks(3))


def test_a_template_that_gives_no_text_or_an_error(chat):
    """One line that names the pair."""
    with pytest.raises(
        ModelError, match=r"the chat template of chat refuses pair 'pair-0' .*\(no turns\); fix its turns"
    ):
        read_all(chat("{{ raise_exception('no\nturns') }}"), talks(3))
    lm = chat(HARMLESS)
    lm.tokenizer.apply_chat_template = lambda *_, **__: 5
    with pytest.raises(ModelError, match=r"refuses pair 'pair-0' .*\(it gives a int, not a text\)"):
        read_all(lm, talks(3))


def test_every_batch_has_the_limits_anew(chat, monkeypatch):
    """What was rendered before does not count, and the texts do not depend on the batches."""
    lm, data = chat(HARMLESS), talks(20)
    whole = read_all(lm, data)
    counted: list[int] = []
    plain = texts.limited
    monkeypatch.setattr(texts, "limited", lambda *given, **more: (counted.append(1), plain(*given, **more))[1])
    monkeypatch.setattr(texts, "_BATCH", 3)
    assert read_all(lm, data) == whole
    assert len(counted) == 7
