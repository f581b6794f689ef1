"""`prefdyn report FOLDER --group NAME`."""

import pytest

from tests.report.make_folder import make_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("one") / "run", names=["alpha", "beta", "gamma ray", "delta"])


def test_the_page_of_a_group_is_written_or_close_names_are_told(folder, prefdyn, tmp_path):
    said = prefdyn("report", str(folder), "--group", "betta", "--out", "page.html")
    assert said.code == 1
    assert said.err.strip() == f"prefdyn: {folder} has no group 'betta'; close: 'beta', 'delta'"
    assert not (tmp_path / "page.html").exists()
    assert prefdyn("report", str(folder), "--group", "beta", "--out", "page.html").code == 0
    assert "<h1><bdi>beta</bdi></h1>" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("others", [["SECOND"], ["--card", "dataset"], ["--figure-style", "paper"]])
def test_a_group_goes_with_one_folder_and_a_page(folder, prefdyn, others, tmp_path):
    given = [str(folder) if each == "SECOND" else each for each in others]
    said = prefdyn("report", str(folder), *given, "--group", "beta", "--out", "elsewhere")
    assert said.code == 1
    assert "--group makes the page of one group of one folder" in said.err
    assert not (tmp_path / "elsewhere").exists()
