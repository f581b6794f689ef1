"""Is this tree fit to be published? `just release` builds wheel and sdist, looks them over, and stops there.

`--publish` hands them to `uv publish`, which asks for a token, where nothing is amiss.
"""

import argparse
import email.parser
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 5_000_000
"""Bytes of either file."""
_NEEDED = ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "src/prefdyn/__init__.py", "src/prefdyn/py.typed")
_NEVER = re.compile(r"(^|/)(\.git|\.venv|\.ci|shared|prefdyn-out|site|dist|__pycache__)/|\.pyc$")


def build(source: Path, out: Path) -> tuple[Path, Path]:
    """Wheel and sdist of a source tree, the wheel from the sdist, as those who install from the index get it."""
    subprocess.run(["uv", "build", "--quiet", "--out-dir", str(out), str(source)], check=True)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def amiss(root: Path, wheel: Path, sdist: Path) -> list[str]:
    """What speaks against publishing, one line each; nothing where all is well.

    Args:
        root: The tree that both were built from.
        wheel: Of it.
        sdist: Of it.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    with zipfile.ZipFile(wheel) as held:
        inside = {name: held.getinfo(name).file_size for name in held.namelist()}
        meta = next(name for name in inside if name.endswith(".dist-info/METADATA"))
        told = email.parser.BytesParser().parsebytes(held.read(meta))
    with tarfile.open(sdist) as packed:
        source = {entry.name.partition("/")[2]: entry.size for entry in packed.getmembers() if entry.isfile()}
    return [
        *_said(root, version, project),
        *(f"{path.name} has {path.stat().st_size:,} bytes, but at most {LARGEST:,} are allowed"
          for path in (wheel, sdist) if path.stat().st_size > LARGEST),
        *(f"{path.name} is not of version {version}" for path in (wheel, sdist) if f"-{version}" not in path.name),
        *(f"the sdist lacks {name}" for name in _NEEDED if name not in source),
        *(f"the wheel lacks {name}" for name in _needed_in_wheel(root) if name not in inside),
        *(f"{where} holds {name}" for where, names in (("the wheel", inside), ("the sdist", source))
          for name in names if _NEVER.search(name)),
        *([] if any(name.endswith("licenses/LICENSE") for name in inside) else ["the wheel lacks its licence"]),
        *(f"the wheel's metadata lack {key}" for key in ("Summary", "License-Expression", "Requires-Python")
          if not told.get(key)),
        *([] if "text/markdown" in str(told.get("Description-Content-Type")) else ["the README is not shown"]),
    ]  # fmt: skip


def _said(root: Path, version: str, project: Mapping[str, object]) -> list[str]:
    """Version and licence where people read them."""
    wrong = []
    log = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.+)$", log, flags=re.MULTILINE)
    if not any(re.fullmatch(rf"\[?{re.escape(version)}\]?( . \d{{4}}-\d{{2}}-\d{{2}})?", head) for head in heads):
        wrong.append(
            f"CHANGELOG.md has no heading for {version} (it has {', '.join(heads[:3])}); name what is released"
        )
    cited = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text(encoding="utf-8"), flags=re.MULTILINE)
    if cited is None or cited[1] != version:
        wrong.append(f"CITATION.cff says version {cited and cited[1]}, and pyproject.toml {version}")
    if project.get("license") != "Apache-2.0" or "Apache License" not in (root / "LICENSE").read_text()[:200]:
        wrong.append("the licence of pyproject.toml is not the one of LICENSE")
    return wrong


def _needed_in_wheel(root: Path) -> list[str]:
    """Every file of the package: code, built-in data and model, templates."""
    package = root / "src"
    return [
        path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"
    ]


def _committed(root: Path, version: str) -> list[str]:
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=root, check=True, capture_output=True, text=True)
    tags = subprocess.run(["git", "tag", "--list", f"v{version}"], cwd=root, check=True, capture_output=True, text=True)
    return [
        *(["there are changes that are not committed"] if changed.stdout else []),
        *([f"the tag v{version} exists already; raise the version"] if tags.stdout else []),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, look, tell; publish where asked to and nothing is amiss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--publish", action="store_true", help="upload with `uv publish` where nothing is amiss")
    publish = parser.parse_args(arguments).publish
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    with tempfile.TemporaryDirectory() as place:
        wheel, sdist = build(ROOT, Path(place))
        wrong = [*_committed(ROOT, version), *amiss(ROOT, wheel, sdist)]
        for path in (wheel, sdist):
            print(f"{path.name}: {path.stat().st_size:,} bytes")
        for line in wrong:
            print(f"amiss: {line}", file=sys.stderr)
        if wrong:
            return 1
        if publish:
            return subprocess.run(["uv", "publish", str(wheel), str(sdist)], check=False).returncode
        print(f"prefdyn {version} is fit to be published: just release --publish, then git tag v{version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
