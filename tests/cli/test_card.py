"""`prefdyn report --card`: to stdout or a file of ours, and refused in one line."""

import pytest

from tests.report.make_folder import make_folder


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "audit", names=3)


def test_it_prints_or_writes_the_same(prefdyn, folder, tmp_path):
    printed = prefdyn("report", folder, "--card", "dataset")
    assert printed.code == 0, printed.err
    assert printed.out.startswith("---\ntags:")
    assert not (tmp_path / "report.html").exists()
    assert prefdyn("report", folder, "--card", "dataset", "--out", "card.md").code == 0
    assert (tmp_path / "card.md").read_text() == printed.out
    assert prefdyn("report", folder, "--card", "model", "--out", "card.md", "--force").code == 0
    assert "model-index" in (tmp_path / "card.md").read_text()


def test_a_file_of_somebody_stays(prefdyn, folder, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    for force in ((), ("--force",)):
        ended = prefdyn("report", folder, "--card", "dataset", "--out", "README.md", *force)
        assert ended.code == 1
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--card", "space"), "unknown"),
        (("audit", "--card", "model"), "one folder"),
        (("--card", "model", "--force"), "--force changes nothing"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(prefdyn, folder, more, says):
    ended = prefdyn("report", folder, *more)
    assert ended.code == 1
    assert says in ended.last_line
    assert "Traceback" not in ended.err
