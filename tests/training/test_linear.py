"""A run made linear where it stands goes where the run goes, to second order; rehearsals start over; stand-ins."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prefdyn.data.pairs import PreferenceDataset
from prefdyn.dynamics.tangent import Dense
from prefdyn.maths.objectives import DPO, IPO, Objective
from prefdyn.maths.optimizers import SGD, AdamW, Optimizer, RMSprop
from prefdyn.models.team import Team
from prefdyn.planning.forecast import sample_of
from prefdyn.planning.forecast_map import settings_map
from prefdyn.settings import Reading
from prefdyn.training import linear
from prefdyn.training.linear import foretell, linear_margins, linear_modules, linearise, standins
from prefdyn.training.probes import PairTable, probe_rows
from prefdyn.training.rehearse import Bench, measured, rehearsal
from prefdyn.training.settings import LoRA
from prefdyn.training.subjects import Models, whole_model
from tests.models.conftest import rows as replies
from tests.models.conftest import yes_no

STEPS, PROBE = 8, 4
ADAMW = AdamW(eps=1e-4)
OBJECTIVE: Objective = DPO(beta=0.5)


def bench_of(
    model, *, tune="lora", rate=1e-3, optimizer: Optimizer = ADAMW, data=None, objective: Objective = OBJECTIVE, **rest
):
    """A subject on a bench, and the pairs that are looked at: all of them."""
    data = yes_no(24).with_held_out(0.5, seed=0) if data is None else data
    team = Team("cpu", cache=False)
    models = Models(
        model=str(model), reading=Reading(device="cpu", cache=False), device="cpu", share=True, team=team,
        progress=False,
    )  # fmt: skip
    options = {"lora": LoRA(rank=2, alpha=4.0)} if tune == "lora" else {}
    chosen = {
        "learning_rate": rate, "optimizer": optimizer, "steps": STEPS, "batch_size": 4, "clip": None, "flip": False,
        "probes": (), **options, **rest,
    }  # fmt: skip
    subject, settings = whole_model(data, models, objective, None, tune, chosen)
    looked = probe_rows(subject.pairs, None, seed=0)
    sample = sample_of(data, subject, looked)
    rows = np.concatenate([looked[~subject.pairs.held_out[looked]], sample.rows])
    return Bench.of(subject, settings, sample), rows


def off_by(model, rate, **rest):
    """How far the linear run from step 4 is off at step 8, and how far the run itself goes meanwhile."""
    bench, rows = bench_of(model, rate=rate, **rest)
    loop = bench.loop(bench.settings)
    for _ in range(PROBE):
        loop.advance()
    begun = linearise(bench.subject, loop, rows)
    start = measured(loop, bench.subject.pairs, bench.sample.rows, DPO(beta=0.5)).margin
    foretold = foretell(begun, loop, bench.sample, records=[STEPS])
    for _ in range(STEPS - PROBE):
        loop.advance()
    end = measured(loop, bench.subject.pairs, bench.sample.rows, DPO(beta=0.5)).margin
    group = bench.sample.group
    real = np.array([(end - start)[group == code].mean() for code in (0, 1)])
    begin = np.array([start[group == code].mean() for code in (0, 1)])
    return np.abs(foretold.values["margin"][0] - begin - real).max(), np.abs(real).max()


@pytest.mark.parametrize("kind", ["llama-tied", "gpt2-untied"])
@pytest.mark.parametrize("optimizer", [ADAMW, SGD(momentum=0.9), RMSprop(eps=1e-3)], ids=lambda one: one.name)
def test_a_linear_run_from_the_probe_is_the_run_to_second_order(tiny, kind, optimizer, monkeypatch):
    """With the optimizer's memory carried over, its error over the same steps falls with the square of the rate."""
    monkeypatch.setattr("prefdyn.training.linear._TERMS", 512)
    scale = {"adamw": 0.002, "sgd": 0.01, "rmsprop": 0.0003}[optimizer.name]
    errors, moved = zip(*(off_by(tiny(kind), rate, optimizer=optimizer) for rate in (scale, scale / 4)), strict=True)
    assert errors[0] < 0.25 * moved[0]
    assert moved[0] > 1e-5
    assert errors[1] / moved[1] < 0.5 * errors[0] / moved[0] + 1e-3


def test_a_full_run_is_followed_in_its_linear_layers_and_says_what_is_left_out(tiny):
    bench, rows = bench_of(tiny("gpt2-untied"), tune="full", rate=1e-4)
    names, left = linear_modules(bench.subject, "full")
    assert any(name.endswith("c_attn") for name in names)
    assert any("wte" in name for name in left)
    loop = bench.loop(bench.settings)
    loop.advance()
    begun = linearise(bench.subject, loop, rows)
    assert begun.signals.left_out == tuple(left)
    assert bench.subject.lm is not None
    weight, start = bench.subject.lm.model.get_submodule(names[0]).weight, begun.start[names[0]]
    assert isinstance(start, Dense)
    torch.testing.assert_close(start.weight, weight.detach().T)  # pyright: ignore[reportCallIssue]
    found = foretell(begun, loop, bench.sample, records=[1, STEPS])
    assert np.isfinite(found.values["loss"]).all()


def test_a_bench_starts_over_to_the_same_run_and_to_others_with_other_seeds(tiny):
    bench, _ = bench_of(tiny("llama-tied"), rate=0.01)
    own, runs = (bench.settings, STEPS), []
    for settings, stop in (own, rehearsal(bench.settings, 7, 12), rehearsal(bench.settings, 8, 12), own):
        loop = bench.loop(settings)
        runs.append(bench.run(loop, stop, [], label="", progress=False))
    np.testing.assert_array_equal(runs[0].values["loss"], runs[3].values["loss"])
    assert np.abs(runs[1].values["loss"][-1] - runs[2].values["loss"][-1]).max() > 1e-9
    assert {run.steps[-1] for run in runs[1:3]} == {STEPS // 4}


def test_stand_ins_are_of_the_same_group_and_the_sampled_are_themselves():
    group = np.array([0] * 6 + [1] * 4)
    held_out = np.array([False] * 5 + [True] + [False] * 3 + [True])
    ones = np.ones(10)
    pairs = PairTable(
        id=np.arange(10).astype(str), group=group, groups=("a", "b"), held_out=held_out, weight=ones,
        chosen_length=ones.astype(int), rejected_length=ones.astype(int), ref_chosen=-ones, ref_rejected=-ones,
    )  # fmt: skip
    sampled = np.array([1, 3, 7])
    place = standins(pairs, sampled, seed=0)
    assert place[sampled].tolist() == [0, 1, 2]
    assert all(group[sampled[place[row]]] == group[row] for row in pairs.train)
    assert (place[held_out] == -1).all()
    np.testing.assert_array_equal(place, standins(pairs, sampled, seed=0))


def weighted_off_by(model, rate, factors):
    """How far linear runs with factors on groups, and without, are off the real run of data weighted by them."""
    optimizer = SGD(momentum=0.9)
    data = yes_no(24).with_held_out(0.5, seed=0)
    plain, rows = bench_of(model, rate=rate, optimizer=optimizer, data=data)
    loop, table = plain.loop(plain.settings), plain.subject.pairs
    begun = linearise(plain.subject, loop, rows)
    column = np.array([factors[table.groups[code]] for code in table.group[rows]])
    both = np.stack([np.ones(len(rows)), column], axis=1)
    _, told = linear_margins(begun, loop, len(plain.sample.rows), records=[STEPS], factors=both)
    bench, _ = bench_of(model, rate=rate, optimizer=optimizer, data=data.weighted(factors))
    real = bench.loop(bench.settings)
    for _ in range(STEPS):
        real.advance()
    end = measured(real, bench.subject.pairs, bench.sample.rows, DPO(beta=0.5)).margin
    return np.abs(told[0, 1] - end).max(), np.abs(told[0, 0] - end).max(), np.abs(end).max()


def test_a_linear_run_with_factors_is_the_run_of_weighted_data_to_second_order(tiny, monkeypatch):
    monkeypatch.setattr("prefdyn.training.linear._TERMS", 512)
    names = yes_no(24).groups
    factors = {names[0]: 3.0, names[1]: 0.3}
    first, second = (weighted_off_by(tiny("llama-tied"), rate, factors) for rate in (0.01, 0.0025))
    assert first[0] < 0.25 * first[1], "the factors count"
    assert second[0] / second[2] < 0.5 * first[0] / first[2] + 1e-3


def test_gradients_may_take_a_gigabyte_of_a_machine_and_a_quarter_of_a_gpu(monkeypatch):
    assert linear._room("cpu") == 2**30
    monkeypatch.setattr(linear, "available_bytes", lambda device: {"cuda:1": 80 * 2**30, "cuda:0": 2**30}[device])
    assert linear._room("cuda:1") == 20 * 2**30
    assert linear._room("cuda:0") == 2**30


def test_what_modules_add_is_the_change_of_the_groups_margins_to_the_runs_last_step(tiny):
    bench, rows = bench_of(tiny("llama-tied"))
    loop = bench.loop(bench.settings)
    for _ in range(PROBE):
        loop.advance()
    told = foretell(linearise(bench.subject, loop, rows), loop, bench.sample, stretch=2, records=[PROBE, STEPS, 12])
    assert told.since == PROBE
    assert set(told.modules) == set(linear_modules(bench.subject, "lora")[0])
    whole = np.sum(list(told.modules.values()), axis=0)
    change = told.values["margin"][1] - told.values["margin"][0]
    assert np.abs(change).min() > 1e-5
    for code in (0, 1):
        assert whole[bench.sample.group == code].mean() == pytest.approx(change[code], rel=1e-4)


@pytest.mark.parametrize("kind", ["answers", "responses", "per token"])
def test_chosen_and_rejected_go_apart_where_the_run_takes_them_to_second_order(tiny, kind, monkeypatch):
    """Against the real log-probabilities at the run's end, of answers and of responses of several tokens."""
    monkeypatch.setattr("prefdyn.training.linear._TERMS", 512)
    objective = IPO(beta=0.5) if kind == "per token" else DPO(beta=0.5)
    data = None if kind == "answers" else PreferenceDataset.from_rows(replies(24), name="replies").with_held_out(0.5)
    off, moved = [], []
    for rate in (0.002, 0.0005):
        bench, rows = bench_of(tiny("llama-tied"), rate=rate, data=data, objective=objective)
        loop, sample = bench.loop(bench.settings), bench.sample
        for _ in range(PROBE):
            loop.advance()
        begun = linearise(bench.subject, loop, rows, apart=len(sample.rows))
        assert begun.apart == len(sample.rows)
        told = foretell(begun, loop, sample, records=[PROBE, STEPS])
        plain = foretell(linearise(bench.subject, loop, rows), loop, sample, records=[PROBE, STEPS])
        np.testing.assert_allclose(told.values["margin"], plain.values["margin"], rtol=1e-3, atol=1e-6)
        assert "chosen_change" not in plain.values
        real = [measured(loop, bench.subject.pairs, sample.rows, objective)]
        for _ in range(STEPS - PROBE):
            loop.advance()
        real.append(measured(loop, bench.subject.pairs, sample.rows, objective))
        for side in ("chosen", "rejected"):
            means = [
                [getattr(each, side)[sample.group == code].mean() for code in range(len(sample.names))]
                for each in real
            ]  # fmt: skip
            np.testing.assert_allclose(told.values[f"{side}_change"][0], means[0], rtol=1e-3, atol=1e-6)
            off.append(np.abs(told.values[f"{side}_change"][1] - means[1]).max())
            moved.append(np.abs(np.subtract(means[0], means[1])).max())
    assert min(moved) > 1e-5
    for place in (0, 1):
        assert off[place] < 0.25 * moved[place]
        assert off[2 + place] / moved[2 + place] < 0.5 * off[place] / moved[place] + 1e-3


def mapped(model, rate, factor, beta):
    """How far the map is off the real run with that beta and that factor on the rate, and off the run as given."""
    bench, rows = bench_of(model, rate=rate)
    loop = bench.loop(bench.settings)
    for _ in range(PROBE):
        loop.advance()
    found = settings_map(linearise(bench.subject, loop, rows), bench)
    place = found.betas.index(beta), found.rates.index(factor)
    other = replace(bench.settings, learning_rate=rate * factor, objective=DPO(beta=beta))
    ends = []
    for settings in (bench.settings, other):
        real = bench.loop(settings)
        for _ in range(STEPS):
            real.advance()
        margin = measured(real, bench.subject.pairs, bench.sample.rows, settings.objective).margin
        loss = OBJECTIVE.loss(OBJECTIVE.beta * margin / settings.objective.beta)
        ends.append(np.array([loss[bench.sample.group == code].mean() for code in (0, 1)]))
    assert found.own == (found.betas.index(0.5), 2)
    np.testing.assert_array_equal(found.to_json()["worst"], found.loss.max(axis=2))
    return np.abs(found.loss[place] - ends[1]).max(), np.abs(found.loss[found.own] - ends[1]).max(), ends[1]


@pytest.mark.parametrize(("factor", "beta"), [(4.0, 0.5), (0.25, 0.5), (2.0, 0.03)])
def test_a_map_of_settings_is_the_real_runs_with_them_to_second_order(tiny, factor, beta, monkeypatch):
    monkeypatch.setattr("prefdyn.training.linear._TERMS", 512)
    (off, own, _), (less, _, end) = (mapped(tiny("llama-tied"), rate, factor, beta) for rate in (2e-4, 5e-5))
    assert off < 0.3 * own
    assert less / np.abs(end - np.log(2)).max() < 0.5
    assert less < 0.3 * off
