"""The losses besides DPO from the command line: curves for all, verdicts for DPO alone."""

import json

import pytest


@pytest.mark.thorough
def test_simulate_takes_each_loss_by_name_and_audit_only_dpo(prefdyn, tmp_path):
    groups = ("--groups", "likes company,keeps promises", "--limit", 30)
    assert prefdyn("extract", *groups, "--out", "features").code == 0
    given = ("--features", "features", "--steps", 3)
    for name, start in (("gpo_ipo", 1.0), ("slic", 1.0), ("dpo", 0.6931471805599453)):
        answer = prefdyn("simulate", *given, "--objective", name, "--learning-rate", "0.01", "--json", "--out", name)
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)
        assert found["settings"]["objective"] == {"slic": "hinge", "dpo": "sigmoid"}.get(name, name)
        assert all(0 < row["predicted_final_loss"] <= start for row in found["groups"])
        page = (tmp_path / name / "report.html").read_text()
        assert ("start = log 2" in page) == (name == "dpo")

    kink = prefdyn("simulate", *given, "--objective", "hinge")
    assert kink.code == 1
    assert "the loss 'hinge' has a kink" in kink.last_line
    assert "in place of 'auto'" in kink.last_line

    refused = prefdyn("audit", *given, "--objective", "gpo_ipo")
    assert refused.code == 1
    assert "an audit judges by the loss of DPO" in refused.last_line
    assert "use `prefdyn simulate`" in refused.last_line
