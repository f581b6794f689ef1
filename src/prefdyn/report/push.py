"""A page on a static space, and a section in the card of a dataset or model, by `huggingface_hub`'s own client.

Nothing that is not ours is overwritten: a space is ours by the marker in it, which lists the files that were written
with their digests, and a section by its own digest in the comments around it. Every commit names the state that was
looked at, so what somebody changes in between stops it.
"""

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from prefdyn._checks import one_of
from prefdyn.errors import ConfigError, StoreError
from prefdyn.outputs import MARKER, Marker
from prefdyn.report.card import card
from prefdyn.report.facts import dataset_name, model_name
from prefdyn.report.folders import RunFolder

KINDS = ("dataset", "model")
_PAGE, _README = "index.html", "README.md"
_BEGIN, _END = "<!-- prefdyn: begin {digest} -->", "<!-- prefdyn: end -->"
_SECTION = re.compile(r"<!-- prefdyn: begin (\w+) -->\n(.*?)\n?<!-- prefdyn: end -->", flags=re.DOTALL)
_FRONT = re.compile(r"\A---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|\Z)", flags=re.DOTALL)
_OURS = "Preference optimisation"
"""Name of the task of our results in a `model-index`."""


class Target(NamedTuple):
    """A repository of the hub."""

    kind: str
    """`space`, `dataset` or `model`."""
    name: str

    @property
    def url(self) -> str:
        """Where people look at it, below the hub's address."""
        return self.name if self.kind == "model" else f"{self.kind}s/{self.name}"


def target(text: str, *, kind: str | None = None) -> Target:
    """From `OWNER/NAME`, or `dataset:OWNER/NAME` and `model:OWNER/NAME` where no kind is given.

    Raises:
        ConfigError: It names no repository, or no kind.

    Example:
        >>> target("model:me/tuned"), target("me/page", kind="space").url
        (Target(kind='model', name='me/tuned'), 'spaces/me/page')
    """
    flag, name = "--space", text
    if kind is None:
        flag, (kind, _, name) = "--card", text.partition(":")
        if kind not in KINDS:
            raise ConfigError(f"--card {text!r} must be dataset:OWNER/NAME or model:OWNER/NAME")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name, flags=re.ASCII):
        raise ConfigError(f"{flag} {text!r} names no repository; write OWNER/NAME")
    return Target(kind, name)


# what is written ------------------------------------------------------------------------------------------------------


def space_files(page: bytes, run: RunFolder) -> dict[str, bytes]:
    """A static space that shows a page: the page, its card, and the marker that makes them ours."""
    title = f"{dataset_name(run)} under {model_name(run)}"
    front = yaml.safe_dump(
        {"title": title[:60], "sdk": "static", "app_file": _PAGE, "pinned": False, "tags": ["prefdyn"]},
        sort_keys=False, allow_unicode=True,
    )  # fmt: skip
    text = "A report of prefdyn: how preference optimisation learns a dataset. Written by `prefdyn push`.\n"
    files = {_PAGE: page, _README: f"---\n{front}---\n\n{text}".encode()}
    with tempfile.TemporaryDirectory() as place:
        kept = {name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in files.items()}
        Marker(command="push", finished=True, files=kept).write(Path(place))
        return {**files, MARKER: (Path(place) / MARKER).read_bytes()}


def card_with_section(old: str | None, run: RunFolder, kind: str) -> str:
    """A card with our section and metadata in it, and everything else as it was.

    A section of ours that stands there is replaced in its place; else it comes to the end. Metadata gain the tags that
    are missing and, for a model, our results in place of those of before.

    Args:
        old: The card; None where there is none.
        run: A folder of `audit` or `train`.
        kind: `dataset` or `model`.

    Raises:
        StoreError: Our section was changed by hand, or its comments or the metadata are broken.
        ConfigError: There is no card of such a folder.
    """
    front, section = _apart(card(run, one_of(kind, KINDS, name="the card")))
    section = section.strip("\n")
    block = f"{_BEGIN.format(digest=_digest(section))}\n{section}\n{_END}"
    if old is None:
        return f"{front}\n{block}\n"
    head, body = _apart(old)
    found = _SECTION.findall(body)
    if len(found) > 1 or body.count("<!-- prefdyn: begin") != len(found):
        raise StoreError(f"the card has {body.count('<!-- prefdyn: begin')} beginnings of a section of prefdyn and "
                         f"{body.count(_END)} ends; keep one of each, or take them all out")  # fmt: skip
    if found:
        digest, text = found[0]
        if _digest(text) != digest:
            raise StoreError(
                "the section of prefdyn in the card was changed by hand since then; take its two comments out "
                "to keep it, or the whole of it to have it anew"
            )
        body = _SECTION.sub(lambda match: block, body)
    else:
        body = f"{body.rstrip()}\n\n{block}\n" if body.strip() else f"\n{block}\n"
    return _merged(head, front) + body


def _apart(text: str) -> tuple[str, str]:
    """Front matter with its fences, and the rest."""
    text = text.replace("\r\n", "\n")
    match = _FRONT.match(text)
    return (text[: match.end()], text[match.end() :]) if match else ("", text)


def _merged(old: str, new: str) -> str:
    """Metadata with ours in them; byte for byte as they were where nothing is to be changed.

    Raises:
        StoreError: They are no YAML mapping, or hold comments, which would be lost.
    """
    fresh = _held(new)
    if not old:
        return new
    try:
        held = _held(old)
    except yaml.YAMLError as error:
        why = " ".join(str(error).split())
        raise StoreError(f"the metadata on top of the card are no YAML: {why}; mend them") from error
    if not isinstance(held, dict):
        raise StoreError("the metadata on top of the card are no `key: value` lines; mend them")
    said = held.get("tags") or []
    tags = [said] if isinstance(said, str) else list(said)
    wanted = dict(held) | {"tags": [*tags, *(tag for tag in fresh["tags"] if tag not in tags)]}
    if ours := fresh.get("model-index"):
        wanted["model-index"] = _results(held.get("model-index"), ours)
    if wanted == held:
        return old
    if re.search(r"^\s*#", old, flags=re.MULTILINE):
        raise StoreError("the metadata on top of the card hold comments, which would be lost; add what `prefdyn report "
                         "--card` prints on top by hand, then push again")  # fmt: skip
    return f"---\n{yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True, width=2**31)}---\n"


def _held(front: str) -> Any:
    return yaml.safe_load(front.strip().removeprefix("---").removesuffix("---")) or {}


def _results(old: Any, ours: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A `model-index` with our results instead of those of before; those of others stay, under their model's name."""
    held = [entry for entry in old or [] if isinstance(entry, dict)]
    kept = []
    for entry in held:
        rest = [one for one in entry.get("results") or [] if (one.get("task") or {}).get("name") != _OURS]
        if rest or not entry.get("results"):
            kept.append({**entry, "results": rest})
    if not kept:
        return ours
    kept[0] = {**kept[0], "results": [*kept[0]["results"], *(one for entry in ours for one in entry["results"])]}
    return kept


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# the hub --------------------------------------------------------------------------------------------------------------


def upload(goal: Target, make: Callable[[str | None], Mapping[str, bytes]], *, private: bool = False) -> str:
    """Look at what is there, make the files, and commit them on top of exactly that.

    Args:
        goal: Where to. A space is made where there is none.
        make: From the text of the card that is there (None: none) to the files to write.
        private: Of a space that is made.

    Returns:
        The address of the commit.

    Raises:
        StoreError: It holds something that is not ours, or the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="prefdyn")
    kind, name = goal.kind, goal.name
    there = _asked(lambda: api.repo_exists(name, repo_type=kind), goal)
    if not there and kind != "space":
        raise StoreError(f"the hub shows no {kind} {name}; make it first, or log in with `hf auth login`")
    made = not there
    if made:
        _asked(lambda: api.create_repo(name, repo_type=kind, space_sdk="static", private=private), goal)
    info: Any = _asked(lambda: api.repo_info(name, repo_type=kind), goal)
    names = {entry.rfilename for entry in info.siblings or ()}
    with tempfile.TemporaryDirectory() as place:

        def read(file: str) -> bytes:
            got = _asked(
                lambda: api.hf_hub_download(name, file, repo_type=kind, revision=info.sha, cache_dir=place), goal
            )
            return Path(got).read_bytes()

        if kind == "space" and not made:
            _check_ours(goal, names, read)
        files = make(read(_README).decode() if _README in names and kind != "space" else None)
        operations = [CommitOperationAdd(path, body) for path, body in files.items()]
        done: Any = _asked(
            lambda: api.create_commit(
                name, operations, repo_type=kind, parent_commit=info.sha, commit_message="Report of prefdyn"
            ),
            goal,
        )
    return str(done.commit_url)


def _check_ours(goal: Target, names: set[str], read: Callable[[str], bytes]) -> None:
    """Refuse a space that we did not write, or in which somebody changed a file that we would write again.

    Raises:
        StoreError: It is so; says which file.
    """
    with tempfile.TemporaryDirectory() as place:
        if MARKER in names:
            (Path(place) / MARKER).write_bytes(read(MARKER))
        marker = Marker.read(Path(place))
    if marker is None or marker.command != "push":
        raise StoreError(f"the space {goal.name} exists and was not written by prefdyn; give another name")
    for name in (_PAGE, _README):
        if name in names and hashlib.sha256(read(name)).hexdigest() != marker.files.get(name, (0, ""))[1]:
            raise StoreError(
                f"{name} of the space {goal.name} was changed since prefdyn wrote it; give another name, or take the "
                "file out there"
            )


def _asked(ask: Callable[[], Any], goal: Target) -> Any:
    """What the hub answers.

    Raises:
        StoreError: It cannot be reached, or refuses.
    """
    try:
        return ask()
    except Exception as error:  # errors of the client and of what it is built on arrive here
        status = getattr(getattr(error, "response", None), "status_code", None)
        hints: dict[Any, str] = {
            401: "log in with `hf auth login`",
            403: "your token may not write there",
            409: "it changed in between; look, and push again",
            412: "it changed in between; look, and push again",
        }
        hint = hints.get(status, "check the name, the network and your token (`hf auth login`)")
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise StoreError(f"the hub refuses {goal.kind} {goal.name}: {why}; {hint}") from error
