"""Bad input ends with exit 1 or 2 and one line that names the value, the place and the fix; never a traceback, and
never an output folder."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prefdyn.models.load import BUILTIN
from tests.cli.conftest import pair, write_rows

GOOD = [pair(k) for k in range(24)]


def data_file(folder, name="d.jsonl", rows=GOOD):
    return write_rows(folder / name, rows)


def raw(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def model_copy(folder):
    return shutil.copytree(BUILTIN, folder / "model")


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def nan_weights(folder):
    path = model_copy(folder) / "model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    broken = np.array(tensors[name], dtype=np.float32)
    broken.flat[3] = np.nan
    save_file({key: broken if key == name else np.asarray(value, np.float32) for key, value in tensors.items()}, path)
    return path.parent


def without(folder, *names):
    model = model_copy(folder)
    for name in names:
        (model / name).unlink()
    return model


def pickled_weights(folder):
    model = without(folder, "model.safetensors")
    raw(model, "pytorch_model.bin", b"PK\x03\x04")
    return model


def cut_gzip(folder):
    path = write_rows(folder / "cut.jsonl.gz", [pair(k) for k in range(500)])
    path.write_bytes(path.read_bytes()[:-200])
    return path


def existing(folder):
    (folder / "there").mkdir()
    (folder / "there" / "mine.txt").write_text("keep me")
    return folder / "there"


CASES = {
    "malformed JSON": (
        lambda f: ["--data", raw(f, "d.jsonl", lines(*GOOD[:2]) + '{"prompt": "x",\n')],
        1,
        r"d\.jsonl.*3",
    ),
    "wrong column": (
        lambda f: ["--data", data_file(f, rows=[{"prompt": "a", "choosen": "b", "rejected": "c"}])],
        1,
        "chosen",
    ),
    "empty file": (lambda f: ["--data", raw(f, "d.jsonl", "")], 1, r"d\.jsonl.*empty|no rows"),
    "empty CSV": (lambda f: ["--data", raw(f, "d.csv", "prompt,chosen,rejected\n")], 1, r"d\.csv"),
    "CSV without a column": (lambda f: ["--data", raw(f, "d.csv", "prompt,chosen\na,b\n")], 1, "rejected"),
    "not Parquet": (lambda f: ["--data", raw(f, "d.parquet", "hello")], 1, r"d\.parquet"),
    "one class": (
        lambda f: ["--data", data_file(f, rows=[pair(2 * k) for k in range(30)])],
        1,
        "same answer|one class",
    ),
    "chosen equals rejected": (
        lambda f: ["--data", data_file(f, rows=[*GOOD, pair(0, rejected=" Yes")])],
        1,
        r"d\.jsonl.*25",
    ),
    "null field": (lambda f: ["--data", data_file(f, rows=[*GOOD, pair(0, prompt=None)])], 1, r"25.*prompt"),
    "a number for a text": (lambda f: ["--data", data_file(f, rows=[*GOOD, pair(0, chosen=7)])], 1, r"25.*chosen"),
    "truncated gzip": (lambda f: ["--data", cut_gzip(f)], 1, r"cut\.jsonl\.gz"),
    "not gzip": (lambda f: ["--data", raw(f, "d.jsonl.gz", "plain text")], 1, r"d\.jsonl\.gz"),
    "not UTF-8": (
        lambda f: ["--data", raw(f, "d.jsonl", lines(GOOD[0]).encode() + b'{"prompt": "\xff\xfe"}\n')],
        1,
        "UTF-8",
    ),
    "missing file": (lambda f: ["--data", f / "nowhere.jsonl"], 1, r"nowhere\.jsonl"),
    "unknown kind of file": (lambda f: ["--data", raw(f, "d.xlsx", "x")], 1, r"d\.xlsx"),
    "unknown group": (lambda _: ["--groups", "keeps promisses"], 1, "keeps promisses"),
    "unknown group column": (lambda f: ["--data", data_file(f), "--group-column", "gruop"], 1, "gruop.*group"),
    "unknown template": (lambda _: ["--template", "quetsion"], 1, "quetsion"),
    "long answers under --answers": (
        lambda f: [
            "--data",
            data_file(f, rows=[pair(k, chosen=f" a long answer {k}") for k in range(24)]),
            "--answers",
            "Yes,No",
        ],
        1,
        "answers",
    ),
    "two answers of several tokens": (
        lambda f: [
            "--data",
            data_file(f, rows=[pair(k, chosen=" of course it is", rejected=" Never ever") for k in range(24)]),
        ],
        1,
        "--eos",
    ),
    "answers of two tokens": (lambda f: ["--answers", "Yes,Never ever"], 1, "Never ever"),
    "one answer only": (lambda _: ["--answers", "Yes"], 1, "--answers 'Yes'"),
    "missing model": (lambda f: ["--model", f / "no-model"], 1, "no-model"),
    "model without config": (lambda f: ["--model", without(f, "config.json")], 1, "config"),
    "model without tokenizer": (
        lambda f: ["--model", without(f, "tokenizer.json", "tokenizer_config.json")],
        1,
        "tokenizer",
    ),
    "model without weights": (lambda f: ["--model", without(f, "model.safetensors")], 1, "safetensors"),
    "pickled weights": (lambda f: ["--model", pickled_weights(f)], 1, "safetensors"),
    "NaN weights": (lambda f: ["--model", nan_weights(f)], 1, "NaN|finite"),
    "a hub model offline": (lambda _: ["--model", "nobody/no-such-model"], 1, "nobody/no-such-model"),
    "unknown dtype": (lambda _: ["--dtype", "float23"], 1, "float23"),
    "unknown device": (lambda _: ["--device", "abacus"], 1, "abacus"),
    "features that are no folder": (lambda f: ["--features", f / "nothing"], 1, "nothing"),
    "features of another kind": (lambda f: ["--features", existing(f)], 1, "there"),
    "data with features": (
        lambda f: ["--features", f, "--data", "builtin"],
        1,
        "--data cannot be used with --features",
    ),
    "another model with features": (lambda f: ["--features", f, "--model", "x"], 1, "--model cannot be used"),
    "a twin with features": (lambda f: ["--features", f, "--untrained-twin"], 1, "--untrained-twin cannot be used"),
    "UMAP that is not installed": (lambda _: ["--embedding", "umap"], 1, "pip install umap-learn"),
    "unknown picture": (lambda _: ["--embedding", "tsne"], 1, "tsne"),
    "output exists": (lambda f: ["--out", existing(f)], 1, "there exists already.*name another folder"),
    "output under a file": (lambda f: ["--out", raw(f, "file", "x") / "out"], 1, "file"),
    "beta of 0": (lambda _: ["--beta", "0"], 1, "beta is 0"),
    "negative rate": (lambda _: ["--learning-rate", "-1"], 1, "learning_rate is -1"),
    "a word for a rate": (lambda _: ["--learning-rate", "fast"], 1, "'fast' is neither a number nor 'auto'"),
    "a share above 1": (lambda _: ["--split", "1.5"], 1, "--split is 1.5"),
    "unknown objective": (lambda _: ["--objective", "sigmiod"], 1, "did you mean 'sigmoid'"),
    "all prompts too long": (lambda _: ["--max-length", "2"], 1, "too long|longer"),
    "unknown key in config": (lambda f: ["--config", raw(f, "c.yaml", "betta: 1\n")], 1, "betta.*did you mean 'beta'"),
    "config that is no YAML": (lambda f: ["--config", raw(f, "c.yaml", "a: [1\n")], 1, "is not YAML"),
    "config that is a list": (lambda f: ["--config", raw(f, "c.yaml", "- 1\n")], 1, "holds a list"),
    "missing config": (lambda f: ["--config", f / "c.yaml"], 1, r"c\.yaml"),
    "nested config": (lambda f: ["--config", raw(f, "c.yaml", "beta: {a: 1}\n")], 1, "must be flat"),
    "steps of 0": (lambda _: ["--steps", "0"], 2, "--steps"),
    "unknown option": (lambda _: ["--bata", "1"], 2, "--bata"),
    "a word for a number": (lambda _: ["--limit", "many"], 2, "--limit"),
}


@pytest.mark.parametrize(("arguments", "code", "says"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_one_clear_line(prefdyn, tmp_path, arguments, code, says):
    asked = arguments(tmp_path)
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    answer = prefdyn("audit", *asked)
    assert answer.code == code, answer.err
    assert re.search(says, answer.last_line, flags=re.IGNORECASE), answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    if code == 1:
        assert answer.last_line.startswith("prefdyn: ")
        assert [line for line in answer.err.splitlines() if line.startswith("prefdyn:")] == [answer.last_line]
    after = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    assert {path for path in after - before if "prefdyn-out" not in path.parts} == set()
    assert not [path for path in after - before if path.name != "prefdyn-out"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["report"], 2, "DIR"),
        (["report", "nowhere"], 1, "nowhere"),
        (["audti"], 2, "audti"),
        (["simulate", "--beta", "0.1,x"], 1, "--beta 'x'"),
        (["simulate", "--steps", "1.5"], 1, "--steps '1.5'"),
        (["data", "--data", "nowhere.csv"], 1, r"nowhere\.csv"),
        (["data", "--to", "x.docx"], 1, r"x\.docx"),
        (["plan", "--schedule", "nan"], 1, "schedule 'nan' is unknown; known: constant, cosine, linear"),
        (["field", "--beta", "1e-30"], 1, "beta is 1e-30, and the plane can be drawn from 1e-12 to 1e[+]100"),
        (["score", "--out", "\udcff"], 1, r"--out '\\udcff' holds bytes that are not UTF-8"),
        (["audit", "--answers", "a\udcff,b"], 1, r"--answers 'a\\udcff,b' holds bytes that are not UTF-8"),
    ],
)
def test_other_commands_fail_as_clearly(prefdyn, arguments, code, says):
    answer = prefdyn(*arguments)
    assert answer.code == code, answer.err
    assert re.search(says, answer.err)
    assert "Traceback" not in answer.err


EARLY = [
    ["audit", "--nope"], ["audit", "--data", "nothere.jsonl"], ["audit", "--groups", "nope"],
    ["audit", "--model", "./nothere"], ["audit", "--objective", "ipo"], ["audit", "--dtype", "int8"],
    ["audit", "--device", "gpu"], ["audit", "--attn", "telepathy"], ["audit", "--figure-style", "other"],
    ["audit", "--features", "nothere"], ["train", "--tune", "other"], ["simulate", "--beta", "-1"],
    ["simulate", "--optimizer", "other"], ["bounds", "--beta", "-1"], ["forecast", "--model", "./nothere"],
    ["score", "--model", "./nothere"], ["plan", "weights", "--model", "./nothere"], ["report", "nothere"],
    ["compare", "a", "b"], ["check", "--model", "./nothere"],
]  # fmt: skip


def test_errors_of_the_command_line_are_told_before_anything_large_is_imported(tmp_path):
    """So that they take as long as `--help`, about; benchmarks/startup.py has the seconds."""
    code = (
        "import json, sys\nfrom prefdyn.cli import main\n"
        "for given in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['prefdyn', *given]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert end.code in (1, 2), given\n"
        "    loaded = {'torch', 'transformers', 'matplotlib', 'sklearn', 'scipy.stats'} & set(sys.modules)\n"
        "    assert not loaded, (given, loaded)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(EARLY)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("prefdyn: ") == len(EARLY) - 1
    assert "unexpected" not in done.stderr


def test_an_unforeseen_error_is_one_line_and_debug_shows_where(prefdyn, monkeypatch):
    """A bug of ours still ends in one line; --debug lets it through."""

    def boom(*_, **__):
        raise RuntimeError("the sky fell\nin two lines")

    monkeypatch.setattr("prefdyn.cli.common.dataset", boom)
    answer = prefdyn("data")
    assert answer.code == 1
    assert answer.last_line == (
        "prefdyn: unexpected RuntimeError: the sky fell in two lines; this is a bug in prefdyn, --debug shows where"
    )
    with pytest.raises(RuntimeError, match="the sky fell"):
        prefdyn("data", "--debug")


def test_an_interruption_leaves_no_output(prefdyn, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("prefdyn.cli.common.dataset", interrupt)
    answer = prefdyn("audit", "--out", "out")
    assert answer.code == 130
    assert "Traceback" not in answer.err
    assert not (tmp_path / "out").exists()
