"""For the documentation: `Example:` sections are code, as `Examples:` is to the tool that reads docstrings."""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (griffe comes with the docs group alone)

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the heading in what is read, not in the source."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^( *)Example:$", r"\1Examples:", obj.docstring.value)
