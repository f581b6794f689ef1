"""Run the audits of docs/gallery.md, and put what they say into the page: `just gallery --out OUT --at PUBLIC=LOCAL …`.

The page holds the commands. Each is run as it stands, but for names of data and models that `--at` says lie elsewhere
here; a folder that OUT already holds is kept, so that one audit can be made anew by itself. Between
`<!-- NAME PICTURE -->` and `<!-- end -->` stand the answers of the audit in OUT/NAME, its verdicts, and one picture of
its page; all else on the page was written by people.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefdyn.report.figures import figure_bytes
from prefdyn.report.folders import read_folder
from prefdyn.report.panels import pictures

ROOT = Path(__file__).resolve().parent.parent
PAGE, PICTURES = ROOT / "docs" / "gallery.md", ROOT / "docs" / "images" / "gallery"
_COMMAND = re.compile(r"^prefdyn audit (?:.*\\\n)*.*$", re.M)
_PLACE = re.compile(r"(?P<mark><!-- (?P<name>[\w-]+) (?P<picture>[\w-]+) -->\n).*?<!-- end -->", re.S)


def commands(text: str) -> dict[str, list[str]]:
    """The audits on the page by the name of their folder; arguments as a shell would split them."""
    split = [shlex.split(found.replace("\\\n", " ")) for found in _COMMAND.findall(text)]
    return {words[words.index("--out") + 1]: words for words in split}


def here(words: list[str], at: Mapping[str, str]) -> list[str]:
    """The same with what lies elsewhere on this machine: a whole argument, or what follows the scheme of one."""
    found = []
    for word in words:
        scheme, colon, rest = word.partition(":")
        whole = colon == "" or rest not in at
        found.append(at.get(word, word) if whole else f"{scheme}:{at[rest]}")
    return found


def block(summary: Mapping[str, Any], name: str, title: str) -> str:
    """Answers, verdicts and the picture of one audit, as Markdown; `title` is what the picture shows."""
    groups = summary["groups"]
    verdicts = ", ".join(
        f"{verdict} {count}" for verdict, count in Counter(row["verdict"] for row in groups).most_common()
    )
    pairs, units = (sum(int(row[what]) for row in groups) for what in ("pairs", "units"))
    of = f"{len(groups)} groups" if len(groups) > 1 else "one group"
    told = [f"**{answer['title']}.** {answer['sentence']}" for answer in summary["answers"]]
    head = f"*{pairs:,} pairs ({units:,} units) in {of}. Verdicts: {verdicts}.*"
    return "\n\n".join([head, *told, f"![{title}](images/gallery/{name}.svg)"])


def main() -> None:
    """Run what is not there yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the folders of the audits are or will be")
    parser.add_argument("--at", action="append", default=[], metavar="PUBLIC=LOCAL", help="where something lies here")
    parser.add_argument("--page-only", action="store_true", help="run nothing; blocks without a folder stay")
    given = parser.parse_args()
    at = dict(each.split("=", 1) for each in given.at)
    text = PAGE.read_text(encoding="utf-8")
    for name, words in commands(text).items():
        if not given.page_only and not (given.out / name).is_dir():
            words = [*here(words[1:], at), "--out", str(given.out / name)]
            print(f"{name}: prefdyn {shlex.join(words)}", flush=True)
            subprocess.run([sys.executable, "-m", "prefdyn", *words], check=True, stdout=subprocess.DEVNULL)

    def filled(found: re.Match[str]) -> str:
        folder = given.out / found["name"]
        if not folder.is_dir():
            return found[0]
        drawn = {each.id: each for each in pictures(read_folder(folder))}[found["picture"]]
        (PICTURES / f"{found['name']}.svg").write_bytes(figure_bytes(drawn, formats=("svg",))["svg"])
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return f"{found['mark']}{block(summary, found['name'], drawn.title)}\n<!-- end -->"

    PAGE.write_text(_PLACE.sub(filled, text), encoding="utf-8")


if __name__ == "__main__":
    main()
