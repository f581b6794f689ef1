"""Planned weights against linear runs of the real kind: they must gain there too; what cannot be asked is refused."""

from dataclasses import replace

import numpy as np
import pytest

from prefdyn.dynamics.foretold import Foretold
from prefdyn.dynamics.progress import ProgressBand
from prefdyn.dynamics.sampling import batches
from prefdyn.dynamics.tangent import tangent
from prefdyn.errors import ConfigError
from prefdyn.maths.objectives import DPO
from prefdyn.models.extract import extract
from prefdyn.planning.goals import Goal
from prefdyn.planning.weights import plan_weights
from prefdyn.planning.weights_forecast import in_the_run, settings_foretold
from prefdyn.report.plan import points
from prefdyn.settings import Reading
from prefdyn.training.settings import LoRA, resolve
from scripts import weights_forecast_by_lot as by_lot
from tests.models.conftest import byte_tokenizer, make_model, own_cache, yes_no

__all__ = ["own_cache"]

READING = Reading(device="cpu", cache=False)
GAINS = {"gain": np.array([0.2, 0.1]), "loss": np.array([-0.2, -0.1]), "one seed": np.array([0.3, -0.01])}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A plan, its pairs and model, and a run that is to be made."""
    model = str(make_model(tmp_path_factory.mktemp("model") / "m", "llama-tied", byte_tokenizer()))
    data = yes_no(60).with_held_out(0.5, seed=0)
    plan = plan_weights(extract(data, model, cache=False, progress=False), steps=10, progress=False)
    settings = resolve(
        30,
        tune="lora",
        objective=DPO(beta=0.5),
        learning_rate=5e-3,
        steps=6,
        batch_size=6,
        lora=LoRA(rank=2, alpha=4.0),
    )
    return plan, data, model, settings


def asked(place, **changed):
    plan, data, model, settings = place
    plan = replace(plan, **changed)
    return in_the_run(plan, data, model, settings, reading=READING, seeds=2, progress=False)


def test_a_plan_is_held_against_linear_runs_and_never_says_more_than_they(place):
    found = asked(place, change=True, factors=place[0].proposed)
    assert found.run is not None
    assert found.run.judged.methods == ("as_given", "plan", "stratified", "tempered")
    assert found.run.steps == 12
    assert found.change == found.run.holds
    assert found.change or (found.factors == 1).all()
    again = asked(place, change=True, factors=place[0].proposed)
    assert again.run is not None
    np.testing.assert_array_equal(found.run.gains, again.run.gains)
    np.testing.assert_array_equal(found.run.judged.loss, again.run.judged.loss)
    told = found.summary()["plan"]["weights"]["in_the_run"]
    assert [row["name"] for row in told["methods"]][:2] == ["as_given", "plan"]
    kept = asked(place, change=False)
    assert not kept.change, "where the last layer says to keep the weights, no linear run turns that round"


def test_weights_of_one_change_nothing_in_the_run(place):
    plan = place[0]
    found = asked(place, change=True, found=np.ones_like(plan.found))
    assert found.run is not None
    np.testing.assert_allclose(found.run.gains, 0, atol=1e-6)
    assert not found.run.holds
    assert not found.change


def test_a_gain_must_be_there_in_every_seed(place, monkeypatch):
    """The rule by itself: margins of the proposal are made better or worse than those as given, seed by seed."""
    from prefdyn.planning import weights_forecast

    for name, gains in GAINS.items():
        at = iter(gains)

        def made(begun, loop, measured, *, factors, at=at, **rest):
            ends = np.zeros((1, factors.shape[1], measured))
            ends[0, 1] = next(at)
            return (12,), ends

        monkeypatch.setattr(weights_forecast, "linear_margins", made)
        found = asked(place, change=True, factors=place[0].proposed)
        assert found.run is not None
        assert (found.run.gains > 0).tolist() == (gains > 0).tolist()
        assert found.change == (name == "gain"), name


def test_what_cannot_be_asked_is_refused(place):
    plan, data, model, settings = place
    with pytest.raises(ConfigError, match="'equal' takes runs of each group alone"):
        asked(place, goal=Goal.read("equal"))
    with pytest.raises(ConfigError, match="tune"):
        in_the_run(plan, data, model, resolve(30, tune="last-layer", learning_rate=0.1), reading=READING)
    origin = plan.features.provenance
    told = {
        "provenance": {"data": {"name": "d", "sha256": data.sha256}}, "model": dict(origin.model),
        "settings": settings.to_json(),
    }  # fmt: skip

    none = np.zeros(0)
    band = ProgressBand(levels=none, centre=np.zeros((0, 1)), error=none, scale=np.ones(1), linear=none, freedom=1.0)

    def forecast(**changed):
        return Foretold(names=("a",), band=band, clock=np.zeros((3, 0)), summary={**told, **changed})

    assert settings_foretold(forecast(), "told", data, origin.model) == settings
    with pytest.raises(ConfigError, match="told is of other pairs"):
        settings_foretold(forecast(), "told", data.select(data.groups[:1]), origin.model)
    with pytest.raises(ConfigError, match="of another model"):
        settings_foretold(forecast(model={"name": "x", "sha256": "0"}), "told", data, origin.model)
    with pytest.raises(ConfigError, match="made with reference"):
        settings_foretold(forecast(forecast={"reference": "other"}), "told", data, origin.model)
    turned = replace(settings, flip=True).to_json()
    with pytest.raises(ConfigError, match="made with flip"):
        settings_foretold(forecast(settings=turned), "told", data, origin.model)
    with pytest.raises(ConfigError, match="not whole"):
        settings_foretold(forecast(settings={"tune": "lora"}), "told", data, origin.model)


def test_page_and_terminal_tell_what_the_run_would_do(place, tmp_path):
    from prefdyn.report.folders import read_folder

    found = asked(place, change=True, factors=place[0].proposed)
    found.write(tmp_path)
    run = read_folder(tmp_path)
    said = dict(points(run, run.summary["plan"]["weights"]))
    assert "12 steps of a linear LoRA run, over 2 seeds" in said["In runs"]
    assert "In linear runs of the LoRA run" in said["How sure"]


def test_the_network_that_rates_are_counted_on_is_what_its_signals_say():
    """Real and linear runs of it agree where it hardly moves, and part where it does."""
    pairs = by_lot.drawn("a small group against a large one", 0)
    share, order = np.ones((len(pairs.group), 1)), batches(360, 16, 30, seed=0)
    apart = []
    for rate in (1e-5, 1e-2):
        settings = resolve(360, tune="lora", steps=30, batch_size=16, learning_rate=rate, lora=LoRA(rank=4, alpha=8.0))
        real = by_lot.NETWORK.real(pairs, by_lot.adapters(0), order, share, settings)[0]
        run = tangent(
            by_lot.NETWORK.signals(pairs), by_lot.adapters(0), settings.objective, settings.optimizer,
            learning_rate=rate, batches=order, share=share[:, 0], clip=settings.clip, recorded=[30],
        )  # fmt: skip
        linear = settings.objective.beta * run.values[0, 0]
        apart.append(np.abs(real - linear).max() / np.abs(real).max())
    assert apart[0] < 1e-3
    assert apart[1] > 0.02


def test_rates_are_counted_with_whole_prompts_on_one_side():
    for name in ("four equal groups, five copies of each prompt", "four equal groups, rankings of four"):
        pairs = by_lot.drawn(name, 0)
        seen = np.flatnonzero(~pairs.further)
        held = by_lot.held_out(pairs, seen, 0.9, 0)
        assert not set(pairs.unit[seen][held]) & set(pairs.unit[seen][~held])
        assert not set(pairs.unit[seen]) & set(pairs.unit[pairs.further])
        assert (np.bincount(pairs.group[seen][held]) >= 5).all()
        assert len(np.unique(pairs.unit[seen])) <= len(seen) / 5
