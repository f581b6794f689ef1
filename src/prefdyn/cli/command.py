"""Commands out of functions that take settings: their flags, what a file of flags says, what stands beside results.

A command is a function whose parameters are settings classes (each opened into the flags of its fields), types with a
`Flag`, or what typer itself knows. `Only` says which fields of a class it has; the parameter's default holds the
defaults, and every settings class has one. Only typer is imported here, so `--help` stays quick.
"""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from prefdyn import _typed
from prefdyn.settings import Flag, Settings


class Only:
    """The fields of a settings class that a command has as flags."""

    def __init__(self, *names: str, lists: Sequence[str] = ()) -> None:
        """`lists`: those that take a comma list here, so that the command gets several values: a grid."""
        self.names, self.lists = (*names, *lists), lists


Axes = Mapping[str, tuple[Any, ...]]
"""The values of each setting that takes a comma list, by name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One flag of one command."""

    name: str
    kind: Any
    flag: Flag
    default: Any
    owner: str | None
    """The command's parameter that it is a field of; None: it is a parameter itself."""
    grid: bool = False

    @property
    def typed(self) -> Any:
        """What typer reads."""
        if self.grid:
            return str
        if self.flag.typed is None and self.flag.read is not None and self.kind not in (str, float, int):
            return str
        return self.kind if self.flag.typed is None else self.flag.typed

    def parameter(self) -> inspect.Parameter:
        """As typer takes it."""
        flag, name = self.flag, self.name.removesuffix("_output").replace("_", "-")
        on = f"--{name}"
        names = [f"{on}/--no-{name}"] if _switch(self.kind) and self.default is not False else [on]
        help_text = f"{flag.help.removesuffix('.')}; a comma list makes a grid." if self.grid else flag.help
        default = _as_typed(self.default)
        shown = flag.default if default is None and flag.default is not None else not _switch(self.kind)
        option = typer.Option(*names, help=help_text, show_default=shown, min=None if self.grid else flag.least)
        kind = self.typed if default is not None or _optional(self.typed) else self.typed | None
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
        )

    def value(self, typed: Any) -> Any:
        """What a function gets for what was typed."""
        flag = f"--{self.name.replace('_', '-')}"
        if typed is None:
            return self.default
        if self.grid:
            return tuple(self._one(part, flag) for part in _typed.words(str(typed)) or ())
        if self.flag.typed == list[str]:
            return tuple(typed)
        return typed if self.flag.read is None else self.flag.read(typed, flag)

    def _one(self, text: str, flag: str) -> Any:
        if self.flag.read is not None:
            return self.flag.read(text, flag)
        bare = [each for each in get_args(self.kind) if each is not NoneType] or [self.kind]
        return {float: _typed.number, int: _typed.count}.get(bare[0], lambda text, flag: text)(text, flag)


def _switch(kind: Any) -> bool:
    return kind is bool or kind == bool | None


def _optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind)


def _as_typed(value: Any) -> Any:
    """A default as it would be typed, where it is of no type that typer has."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) if value else None
    return value


@dataclass(frozen=True, slots=True)
class Given:
    """The flags of one call, as they were typed or left."""

    entries: Mapping[str, Entry]
    values: Mapping[str, Any]
    typed: frozenset[str]
    """Names of those that the command line itself says."""

    def said(self, name: str) -> bool:
        """Whether somebody set a flag: on the command line, or in a file to something else than the default."""
        if name not in self.values:
            return False
        default = self.entries[name].default if name in self.entries else None
        return name in self.typed or self.values[name] not in (_as_typed(default), None, False)

    def text(self, **other: Any) -> str:
        """All flags as YAML, to be given back with --config."""
        import yaml

        left = {"config", "out", "force", "json_output", "debug"}
        flat = {
            name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            for name, value in {**self.values, **other}.items()
            if name not in left and value is not None
        }
        return yaml.safe_dump(flat, sort_keys=True, allow_unicode=True)

    def save(self, folder: Path) -> None:
        """Write config.yaml."""
        (folder / "config.yaml").write_text(self.text(), encoding="utf-8")


def entries(run: Callable[..., None]) -> list[Entry | inspect.Parameter]:
    """The flags of a command, in order; a parameter that typer itself knows stands as it is."""
    hints = get_type_hints(run, include_extras=True)
    found: list[Entry | inspect.Parameter] = []
    for parameter in inspect.signature(run).parameters.values():
        kind, notes = hints[parameter.name], ()
        if get_origin(kind) is Annotated:
            kind, *notes = get_args(kind)
        flag = next((note for note in notes if isinstance(note, Flag)), None)
        if isinstance(kind, type) and issubclass(kind, Settings):
            only = next((note for note in notes if isinstance(note, Only)), None)
            for name, (each, said) in kind.flags().items():
                if only is None or name in only.names:
                    grid = only is not None and name in only.lists
                    found.append(Entry(name, each, said, getattr(parameter.default, name), parameter.name, grid))
        elif flag is not None:
            found.append(Entry(parameter.name, kind, flag, parameter.default, None))
        elif kind not in (Given, Axes):
            found.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))
    return found


def lists(name: str) -> frozenset[str]:
    """The flags of a command that take a comma list."""
    return _LISTS.get(name, frozenset())


_LISTS: dict[str, frozenset[str]] = {}


def command(name: str, run: Callable[..., None], always: Sequence[inspect.Parameter] = ()) -> Callable[..., None]:
    """What typer is given for a function that takes settings; `always`: flags that the function is not told of."""
    parts = entries(run)
    own = {part.name: part for part in parts if isinstance(part, Entry)}
    _LISTS[name] = frozenset(part.name for part in own.values() if part.grid or part.flag.lists)
    given_as = next((name for name, kind in get_type_hints(run).items() if kind is Given), None)
    parameters = inspect.signature(run).parameters.values()
    defaults = {each.name: each.default for each in parameters if isinstance(each.default, Settings)}

    def called(context: Any, **values: Any) -> None:
        typed = frozenset(
            name for name in values
            if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
        )  # fmt: skip
        for name, value in values.items():
            _refuse_other_bytes(name, value)
        read = {name: entry.value(values[name]) for name, entry in own.items()}
        untold = {parameter.name for parameter in always}
        handed: dict[str, Any] = {name: value for name, value in values.items() if name not in {*own, *untold}}
        handed |= {name: value for name, value in read.items() if own[name].owner is None}
        for owner, held in defaults.items():
            fields = {name: value for name, value in read.items() if own[name].owner == owner}
            several = {name: fields.pop(name) for name, entry in own.items() if entry.grid and entry.owner == owner}
            handed[owner] = replace(held, **fields)
            if several:
                _some_of_each(several)
                handed["axes"] = several
        if given_as is not None:
            handed[given_as] = Given(own, values, typed)
        run(**handed)

    called.__name__, called.__doc__ = run.__name__, run.__doc__
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    called.__annotations__ = {"context": typer.Context}
    called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [context, *(part.parameter() if isinstance(part, Entry) else part for part in parts), *always]
    )
    return called


def _refuse_other_bytes(name: str, value: Any) -> None:
    """Refuse what was typed in bytes that are no UTF-8, unless it is the path of something to be read."""
    if not isinstance(value, str | Path):
        return
    text = str(value)
    if text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text):
        return
    if name != "out" and os.path.exists(text):
        return
    from prefdyn.errors import ConfigError

    raise ConfigError(f"--{name.replace('_', '-')} {text!a} holds bytes that are not UTF-8; type it in UTF-8")


def _some_of_each(axes: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse a comma list with nothing in it."""
    from prefdyn.errors import ConfigError

    for name, values in axes.items():
        if not values:
            raise ConfigError(f"--{name.replace('_', '-')} names nothing; give at least one value")
