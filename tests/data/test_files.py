"""Files and folders as people have them: told by what they hold where names say otherwise, refused by what they are."""

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefdyn.data.files import side_of
from prefdyn.data.loaders import load_dataset
from prefdyn.data.preflight import preflight
from prefdyn.errors import DataError

ROWS = [{"prompt": f"p {i}", "chosen": f"a, {i}", "rejected": "b"} for i in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TEXTS = [tuple(row.values()) for row in ROWS]


def zstd(raw: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(raw)
    return sink.getvalue().to_pybytes()


PACK = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstd}


def texts(data):
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in data.to_rows()]


def put(path: Path, content: bytes | str = LINES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(rows=ROWS, **options) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# JSON by any name ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json"])
@pytest.mark.parametrize(
    "content",
    [
        LINES,
        LINES.rstrip(),
        b"\n\n" + LINES.replace(b"\n", b"\n\n"),
        LINES.replace(b"\n", b"\r\n"),
        json.dumps(ROWS).encode(),
        json.dumps(ROWS, indent=2).encode(),
        b"\xef\xbb\xbf" + json.dumps(ROWS, indent=1).encode(),
        "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
        "\n".join(json.dumps({**row, "more": "} {"}, indent=2) for row in ROWS).encode(),
    ],
)
def test_json_is_lines_a_list_or_objects_whatever_it_is_called(tmp_path, name, content):
    assert texts(load_dataset(put(tmp_path / name, content))) == TEXTS


def test_the_line_of_an_object_over_several_lines_is_where_it_begins(tmp_path):
    content = "\n".join(json.dumps(row, indent=0) for row in ROWS)
    assert load_dataset(put(tmp_path / "x.jsonl", content)).table["line"].to_pylist() == [1, 6, 11]


def test_a_bad_first_line_is_still_one_bad_line(tmp_path):
    """The control: objects over several lines are looked for only where they are all of the file."""
    path = put(tmp_path / "x.jsonl", b'{"prompt": "p", "chosen":\n' + LINES)
    with pytest.raises(DataError, match="line 1: is not valid JSON"):
        load_dataset(path)
    data = load_dataset(path, skip_bad_rows=True)
    assert texts(data) == TEXTS
    assert [item.line for item in data.left_out] == [1]


# compression ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_files_are_read_and_known_under_another_name(tmp_path, suffix):
    packed = PACK[suffix](LINES)
    data = load_dataset(put(tmp_path / f"x.jsonl{suffix}", packed))
    assert (texts(data), data.name, data.table["id"].to_pylist()[0]) == (TEXTS, "x", "x:1")
    assert texts(load_dataset(put(tmp_path / "y.jsonl", packed))) == TEXTS
    assert texts(load_dataset(put(tmp_path / f"z.csv{suffix}", PACK[suffix](table().encode())))) == TEXTS
    two = PACK[suffix](LINES[: len(LINES) // 2]) + PACK[suffix](LINES[len(LINES) // 2 :])
    assert texts(load_dataset(put(tmp_path / f"two.jsonl{suffix}", two))) == TEXTS  # parts one after another


@pytest.mark.parametrize("suffix", PACK)
def test_damaged_compressed_files_say_so(tmp_path, suffix):
    rows = "".join(json.dumps({**ROWS[0], "prompt": f"{i} {i**9}"}) + "\n" for i in range(3000)).encode()
    path = put(tmp_path / f"x.jsonl{suffix}", PACK[suffix](rows)[:-2000])
    with pytest.raises(DataError, match=r"is a truncated or damaged \w+ file: \d+ whole lines could be read; fetch"):
        load_dataset(path)
    plain = put(tmp_path / f"y.jsonl{suffix}", LINES)
    with pytest.raises(DataError, match=rf"is no \w+ file, or a damaged one .*; fetch it again, or drop {suffix}"):
        load_dataset(plain)


# tables --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [",", ";", "|", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_tables_have_any_separator_in_their_header(tmp_path, mark, quoting):
    rows = [{**row, "rejected": f'said "{mark} no"\nand left'} for row in ROWS]
    data = load_dataset(put(tmp_path / "x.csv", table(rows, delimiter=mark, quoting=quoting)))
    assert texts(data) == [tuple(row.values()) for row in rows]


def test_a_table_with_tabs_may_have_stray_quotes_and_a_hash_before_its_header(tmp_path):
    content = '#id\tprompt\tchosen\trejected\nx\tIs it "so"?\t"Yes, it is\tNo"\ny\tAnd?\t"\t5" nail\n'
    for name in ("x.csv", "x.tsv"):
        data = load_dataset(put(tmp_path / name, content))
        assert texts(data) == [('Is it "so"?', '"Yes, it is', 'No"'), ("And?", '"', '5" nail')]
        assert data.table["id"].to_pylist() == ["x", "y"]
        assert data.table["line"].to_pylist() == [2, 3]


def test_quotes_that_enclose_fields_with_tabs_around_are_quoting(tmp_path):
    """The control: where every double quote quotes, quotes are taken off."""
    content = 'prompt\tchosen\trejected\n"p"\t"he said ""hi"""\tno\n'
    assert texts(load_dataset(put(tmp_path / "x.tsv", content))) == [("p", 'he said "hi"', "no")]


def test_comments_before_the_header_are_no_header(tmp_path):
    content = "# made by hand\n# two columns of answers\nprompt,chosen,rejected\np,a,b\n"
    data = load_dataset(put(tmp_path / "x.csv", content))
    assert (texts(data), data.table["line"].to_pylist()) == ([("p", "a", "b")], [4])


def test_a_row_with_too_many_fields_names_the_separator(tmp_path):
    with pytest.raises(DataError, match="line 3: has 4 fields, but the header has 3; quote fields that hold tabs"):
        load_dataset(put(tmp_path / "x.tsv", "prompt\tchosen\trejected\np\ta\tb\np\ta\tb\tc\n"))


# what is none of this ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet", "x.xml", "x.data"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('<?xml version="1.0"?>\n<pairs/>', "is XML, which holds no rows"),
        ("\ufeff  <?xml?>", "is XML"),
        ("<!DOCTYPE html><html>", "is a web page, not the data"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS, not the data itself"),
        (b"PK\x03\x04....", "is a ZIP archive or an Excel workbook"),
        (b"%PDF-1.7", "is a PDF"),
    ],
)
def test_files_of_other_kinds_are_refused_by_what_they_are(tmp_path, name, content, says):
    with pytest.raises(DataError, match=says) as caught:
        load_dataset(put(tmp_path / name, content), skip_bad_rows=True)
    assert "\n" not in str(caught.value)


def test_a_text_that_begins_with_a_tag_is_a_text(tmp_path):
    assert texts(load_dataset(put(tmp_path / "x.csv", "prompt,chosen,rejected\n<b>p,a,b\n"))) == [("<b>p", "a", "b")]


# folders -------------------------------------------------------------------------------------------------------------


def test_folders_are_groups_by_their_names_unless_rows_say_otherwise(tmp_path):
    put(tmp_path / "Natural" / "dataset.json")
    put(tmp_path / "Adversarial" / "GPTInst" / "dataset.json")
    put(tmp_path / "Adversarial" / "Manual" / "dataset.json")
    put(tmp_path / ".git" / "x.json", "{}")
    data = load_dataset(tmp_path)
    assert sorted(data.groups) == ["GPTInst", "Manual", "Natural"]
    assert len(set(data.table["id"].to_pylist())) == 9
    own = "".join(json.dumps({**row, "group": "own"}) + "\n" for row in ROWS)
    put(tmp_path / "Natural" / "dataset.json", own)
    assert set(load_dataset(tmp_path / "Natural").groups) == {"own"}


def test_folders_of_one_name_in_two_places_stay_two_groups(tmp_path):
    for where in ("en", "de"):
        put(tmp_path / where / "hard" / "x.jsonl")
    assert sorted(load_dataset(tmp_path).groups) == ["de/hard", "en/hard"]


def test_files_right_inside_a_folder_are_all_of_it(tmp_path):
    put(tmp_path / "a.jsonl")
    put(tmp_path / "notes" / "b.jsonl", "{")
    assert load_dataset(tmp_path).groups == ("all",)


@pytest.mark.parametrize(
    ("files", "sides"),
    [
        (["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001.jsonl"],
         {"train": 2, "held_out": 1}),
        (["train.jsonl", "dev.jsonl"], {"train": 1, "held_out": 1}),
        (["train/x.jsonl", "validation/x.jsonl"], {"train": 1, "held_out": 1}),
        (["default/train.jsonl", "default/test.jsonl"], {"train": 1, "held_out": 1}),
        (["train.jsonl", "latest.jsonl"], {"train": 2}),
        (["contest.jsonl", "devices.jsonl"], {"train": 2}),
        (["test.jsonl", "validation.jsonl"], {"train": 2}),
    ],
)  # fmt: skip
def test_the_names_of_files_tell_the_parts_of_the_data(tmp_path, files, sides):
    for name in files:
        put(tmp_path / name)
    data = load_dataset(tmp_path)
    found = data.table["split"].to_pylist()
    assert {side: found.count(side) // len(ROWS) for side in set(found)} == sides
    assert data.groups in (("all",), ("default",))


def test_files_about_the_data_are_no_data(tmp_path):
    put(tmp_path / "data" / "train.jsonl")
    put(tmp_path / "dataset_infos.json", '{"default": {}}')
    put(tmp_path / "README.md", "---\nlicense: mit\n---\n")
    assert len(load_dataset(tmp_path)) == 3


def test_of_parts_for_other_uses_those_for_preferences_are_read_and_it_is_told(tmp_path):
    for name in ("train_prefs", "test_prefs", "train_sft", "test_gen"):
        put(tmp_path / "data" / f"{name}-00000-of-00001.jsonl")
    data = load_dataset(tmp_path)
    assert len(data) == 6
    assert data.splits == ("held_out", "train")
    (told,) = [finding.says for finding in preflight(data) if finding.code == "reading"]
    assert "train_sft" in told
    assert "test_gen" in told


def test_a_rows_own_split_goes_before_its_files_name(tmp_path):
    rows = "".join(
        json.dumps({**row, "split": side}) + "\n" for row, side in zip(ROWS, ["train", "test", "train"], strict=True)
    )
    put(tmp_path / "test.jsonl", rows)
    put(tmp_path / "train.jsonl", LINES)
    assert load_dataset(tmp_path).table["split"].to_pylist()[:3] == ["train", "held_out", "train"]


def test_side_of_reads_the_nearest_name():
    root = Path("set")
    assert side_of(root / "train" / "part-1.jsonl", root) == "train"
    assert side_of(root / "train" / "test.jsonl", root) == "test"
    assert side_of(root / "train_test.jsonl", root) is None
    assert side_of(Path("en_validation.json"), Path("en_validation.json")) == "validation"


def test_only_the_columns_that_a_layout_reads_are_read_of_parquet(tmp_path, monkeypatch):
    rows = [{"question": f"q{i}", "chosen": "a", "rejected": "b", "embedding": [0.0] * 8} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    asked = []
    plain = pq.ParquetFile.read

    def read(self, columns, **options):
        asked.append(columns)
        return plain(self, columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read", read)
    assert load_dataset(tmp_path / "x.parquet").table["prompt"].to_pylist() == ["q0", "q1", "q2"]
    assert asked == [["question", "chosen", "rejected"]]
