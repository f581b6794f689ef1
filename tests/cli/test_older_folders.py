"""Folders that an earlier version wrote still open: `folder_0_1` is one of `audit` of version 0.1."""

from pathlib import Path

from prefdyn.planning.audit import audit
from prefdyn.report.folders import read_folder
from prefdyn.report.html import write_report
from prefdyn.synthetic import gaussian_groups

OLD = Path(__file__).parent.parent / "report" / "folder_0_1"


def test_an_older_folder_has_its_page(tmp_path):
    run = read_folder(OLD)
    assert run.summary["schema"] == 1
    assert [row.verdict for row in run.rows] == [item["verdict"] for item in run.groups]
    page = write_report(OLD, tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(f"group {code}" in page for code in range(3))


def test_what_was_measured_then_is_what_is_measured_now():
    """The same features, the same seed: a change of a number is a breaking change."""
    now = audit(gaussian_groups(24, groups=3, width=4, held_out=0.25), steps=5, progress=False)
    for old, new in zip(read_folder(OLD).rows, now.groups, strict=True):
        for name in ("distinguishability", "probe_accuracy", "predicted_final_loss", "cross_fitted_loss"):
            assert abs(getattr(old, name) - getattr(new, name)) < 1e-9
        assert old.verdict == new.verdict


def test_an_older_folder_is_compared_with_a_new_one(prefdyn, tmp_path):
    ended = prefdyn("compare", OLD, OLD, "--out", tmp_path / "out")
    assert ended.code == 0
    assert (tmp_path / "out" / "report.html").exists()
