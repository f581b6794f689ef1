"""`--config FILE.yaml`: flags from a file, read as the command line would read them, whoever wrote it."""

import csv
import io
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

_LARGEST = 1_000_000
"""Bytes; a file of flags is a few hundred."""
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def read_config(path: Path, context: Any, parameters: Mapping[str, Any], lists: Container[str]) -> dict[str, Any]:
    """The flags that a file sets, converted and checked as those of the command line are.

    A value means what the same text would mean after its flag. So `revision: 1e5` is a name, `answers: [Yes, No]` are
    two words, and `null` leaves the default.

    Args:
        path: The YAML file: flat keys; a value, or a list where the flag takes several.
        context: The command's, from typer.
        parameters: Name of each flag, without dashes and with underscores, and its parameter in typer.
        lists: Names of those that take a comma list, for which a list may stand.

    Raises:
        ConfigError: The file cannot be read, or a key or a value is not one of this command's; names file, line, key.
    """
    from prefdyn._checks import nearest
    from prefdyn.errors import ConfigError

    flags = [name for name, parameter in parameters.items() if f"--{name}".replace("_", "-") in parameter.opts]
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, node in _entries(path):
        line = key.start_mark.line + 1
        place = f"--config {path}, line {line}"
        name = str(key.value).replace("-", "_")
        parameter = parameters.get(name)
        if parameter is None:
            raise ConfigError(f"{place}: {key.value!r} is no flag of `{context.command.name}`{nearest(name, flags)}")
        if parameter.name in lines:
            raise ConfigError(f"{place}: {key.value!r} was set on line {lines[parameter.name]} already; keep one")
        lines[parameter.name] = line
        value = _value(
            node, parameter, context, lists, place=f"{place}: {key.value}", off=name == f"no_{parameter.name}"
        )
        if value is not None:
            values[parameter.name] = value
        if parameter.name == "trust_remote_code" and value:
            print(
                f"prefdyn: --config {path}, line {line}, switches on trust_remote_code: Python code that the model's "
                "folder ships will run on this machine",
                file=sys.stderr,
            )
    return values


def _entries(path: Path) -> "list[tuple[yaml.ScalarNode, yaml.Node]]":
    import yaml

    from prefdyn.errors import ConfigError

    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror}; check the path") from error
    if len(raw) > _LARGEST:
        raise ConfigError(f"--config {path} has more than {_LARGEST:,} bytes; give a file of flags")
    try:
        root = yaml.compose(raw.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"byte {raw[error.start]:#04x}"
        raise ConfigError(f"--config {path}, line {line}: is not UTF-8 ({byte}); save the file as UTF-8") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"--config {path} is nested too deeply; it must hold flat `key: value` lines") from error
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag.endswith(":null")):
        return []
    if not isinstance(root, yaml.MappingNode):
        what = "a list" if isinstance(root, yaml.SequenceNode) else "one value"
        raise ConfigError(f"--config {path} holds {what}, but must hold flat `key: value` lines")
    for key, _ in root.value:
        if not isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            raise ConfigError(f"--config {path}, line {line}: a key is no text, but must be the name of a flag")
    return root.value


def _value(node: "yaml.Node", parameter: Any, context: Any, lists: Container[str], *, place: str, off: bool) -> Any:
    """What a flag gets for a node; None where the node says null."""
    import typer
    import yaml

    from prefdyn._shape import shown
    from prefdyn.errors import ConfigError

    if isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{place} holds a mapping, but every key must be flat")
    if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
        return None
    several = getattr(parameter, "multiple", False) or parameter.nargs != 1
    texts = [_text(item, place) for item in (node.value if isinstance(node, yaml.SequenceNode) else [node])]
    if isinstance(node, yaml.SequenceNode) and not several:
        if parameter.name not in lists:
            raise ConfigError(f"{place} holds a list, but takes one value")
        texts = [_row(texts)]
    if isinstance(node, yaml.SequenceNode) and not node.value:
        raise ConfigError(f"{place} is an empty list; give a value, or leave the key out")
    if getattr(parameter, "is_flag", False):
        found = texts[0].strip().lower()
        if found not in (*_YES, *_NO):
            raise ConfigError(f"{place} is {shown(texts[0])}, but must be true or false")
        return (found in _YES) != off
    try:
        return _converted(texts if several else texts[0], parameter, context)
    except typer.BadParameter as error:
        raise ConfigError(f"{place} is {shown(texts[0])}: {' '.join(error.message.split())}") from error


def _converted(given: str | list[str], parameter: Any, context: Any) -> Any:
    """As on the command line; and a whole number written as 100.0 or 1e3 is one."""
    import typer

    try:
        return parameter.process_value(context, given)
    except typer.BadParameter:
        try:
            number = float(given) if isinstance(given, str) else 0.5
        except ValueError:
            number = 0.5
        if not number.is_integer() or abs(number) > 2**53 or given == str(int(number)):
            raise
        return parameter.process_value(context, str(int(number)))


def _text(node: "yaml.Node", place: str) -> str:
    """The text of a value as it was typed."""
    import yaml

    from prefdyn._shape import shown
    from prefdyn.errors import ConfigError

    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{place} holds a list inside a list or a mapping, but every key must be flat")
    if node.tag.endswith(":null"):
        raise ConfigError(f"{place} holds null in a list; give a value")
    text = str(node.value)
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(
            f"{place} is {shown(text)}, which holds a null character or half of a surrogate pair; mend the text"
        )
    return text


def _row(texts: list[str]) -> str:
    """Texts with commas between, in the quoting that comma lists are read with."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(texts)
    return line.getvalue()
