"""Result tables as CSV: no cell is a formula to a spreadsheet, and ours reads back what was written."""

import csv as reference
import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdyn._csv import guarded, is_formula, read_csv, unguarded, write_csv

HOSTILE = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''@x", '=HYPERLINK("x")']
HARMLESS = ["plain", "a=b", "'quoted'", "", "-0.5", "+1e-3", "12", " =1", "ä-b", "'"]
TEXTS = st.text(st.sampled_from("='+-@\t\r\n＝ab1. \""), max_size=8)


def written(table):
    sink = pa.BufferOutputStream()
    write_csv(table, sink)
    return sink.getvalue()


@given(TEXTS)
def test_guarding_can_be_undone_and_leaves_no_formula(text):
    """For any text; and what is no formula and looks like no guarded one stays as it is."""
    safe = guarded(text)
    assert unguarded(safe) == text
    assert not is_formula(safe)
    if not text.startswith("'") and not is_formula(text):
        assert safe == text


@given(TEXTS, TEXTS)
def test_different_texts_stay_different(one, two):
    assert (guarded(one) == guarded(two)) is (one == two)


@pytest.mark.parametrize("text", HOSTILE[:8] + HOSTILE[-1:])
def test_what_a_spreadsheet_would_run(text):
    assert is_formula(text)
    assert guarded(text) == f"'{text}"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_it_would_not(text):
    assert not is_formula(text)
    assert guarded(text) == text


def test_a_table_on_disk_has_no_formula_and_its_numbers_stay(tmp_path):
    """As another reader sees it, header included; and as ours does."""
    table = pa.table({"=name": HOSTILE, "loss": [-0.5] * len(HOSTILE), "pairs": [-3, *[None] * (len(HOSTILE) - 1)]})
    write_csv(table, tmp_path / "groups.csv")
    with (tmp_path / "groups.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = reference.reader(file)
    assert header == ["'=name", "loss", "pairs"]
    assert [row[0] for row in rows] == [f"'{text}" for text in HOSTILE]
    assert {row[1] for row in rows} == {"-0.5"}
    assert rows[0][2] == "-3"
    assert read_csv(tmp_path / "groups.csv") == table


def test_a_harmless_table_is_written_as_arrow_writes_it():
    from pyarrow import csv

    table = pa.table(
        {"name": HARMLESS, "loss": pa.array([-1.5] * len(HARMLESS)).dictionary_encode().dictionary_decode()}
    )
    sink = pa.BufferOutputStream()
    csv.write_csv(table, sink)
    assert written(table) == sink.getvalue()


def test_texts_under_a_dictionary_are_guarded_too():
    table = pa.table({"group": pa.array(["=1", "b", "=1"]).dictionary_encode()})
    rows = list(reference.reader(io.StringIO(written(table).to_pybytes().decode(), newline="")))
    assert rows == [["group"], ["'=1"], ["b"], ["'=1"]]
