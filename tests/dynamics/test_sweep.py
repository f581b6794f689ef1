"""Grids: every cell is a run of its own, equal runs are solved once, and what diverges takes nobody along."""

import warnings

import numpy as np
import pytest

from prefdyn.dynamics import sweep as sweep_module
from prefdyn.dynamics.descent import descent, stability, stable_learning_rate
from prefdyn.dynamics.engine import Stop
from prefdyn.dynamics.sweep import sweep
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, GPOIPO, IPO, SFT, SLiC
from prefdyn.maths.optimizers import SGD, Adam, AdamW
from prefdyn.synthetic import gaussian_groups
from tests.dynamics.test_engine import problem

QUANTITIES = ("loss", "margin", "reward_accuracy", "policy_accuracy", "chosen_log_prob", "rejected_change", "drift")


def same(run, other, atol=1e-10):
    """Two runs with equal tables and margins."""
    assert run.table.num_rows == other.table.num_rows
    for name in run.table.column_names:
        left, right = run.table[name].to_pylist(), other.table[name].to_pylist()
        if isinstance(left[0], float):
            numbers = [np.array(values, dtype=float) for values in (left, right)]
            np.testing.assert_allclose(*numbers, atol=atol, rtol=atol, err_msg=name)
        else:
            assert left == right, name
    for step, margins in other.margins.items():
        np.testing.assert_allclose(run.margins[step], margins, atol=atol, rtol=atol)


GRID = {
    "objective": ["sigmoid", "ipo", SLiC(beta=0.3), SFT()],
    "beta": [0.2, 0.5],
    "learning_rate": [0.02, 0.1],
    "optimizer": ["sgd", SGD(momentum=0.9), Adam()],
    "batch_size": ["full", 4],
    "groups": [None, ["0", "2"], ["1"]],
    "seed": [0, 1],
    "steps": 12,
    "margins_at": [5, 12],
}


def cells(grid):
    """The grid's cells in its order, as arguments of sweeps with one run each."""
    objectives = [
        each
        for one in grid["objective"]
        for each in ([(one, beta) for beta in grid["beta"]] if isinstance(one, str) else [(one, 0.1)])
    ]
    return [
        {
            "objective": objective,
            "beta": beta,
            "learning_rate": rate,
            "optimizer": optimizer,
            "batch_size": size,
            "groups": [subset],
            "seed": seed,
        }
        for objective, beta in objectives
        for rate in grid["learning_rate"]
        for optimizer in grid["optimizer"]
        for size in grid["batch_size"]
        for subset in grid["groups"]
        for seed in grid["seed"]
    ]


@pytest.mark.thorough
@pytest.mark.parametrize(("tokens", "route"), [(2, "auto"), (5, "rows")])
def test_every_cell_is_a_run_of_its_own(tokens, route):
    """432 settings of everything at once, one in eleven of them run alone.

    Five tokens go by rows, where margins that nothing has moved yet are 0 exactly, as accuracies need them.
    """
    feats, _ = problem(tokens)
    many, single = sweep(feats, **GRID, route=route), cells(GRID)
    assert len(many) == len(single) == 432
    for place in range(0, len(many), 11):
        (own,) = sweep(feats, **single[place], steps=12, margins_at=[5, 12], route=route)
        same(many[place], own)
    assert len(set(many.same_as)) < len(many)


def test_runs_share_a_solve_as_far_as_its_state_may_grow(monkeypatch):
    """Room for the heads of two runs at a time, and the same numbers."""
    feats, _ = problem(2)
    settings = {"learning_rate": [0.1, 0.2, 0.3, 0.4, 0.5], "steps": 3, "margins_at": [3]}
    together, sizes = sweep(feats, **settings), []
    monkeypatch.setattr(sweep_module, "_STATE_BYTES", 2 * 8 * len(feats.tokens) * feats.kernel_width)
    carry = sweep_module._Solver.carry
    monkeypatch.setattr(
        sweep_module._Solver, "carry",
        lambda self, given, same_as, places: sizes.append(len(places)) or carry(self, given, same_as, places),
    )  # fmt: skip
    apart = sweep(feats, **settings)
    assert sizes == [2, 2, 1]
    for place in range(5):
        np.testing.assert_allclose(apart[place].margins[3], together[place].margins[3], rtol=1e-12, atol=1e-14)


def test_subsets_solved_together_or_apart_are_the_run_of_those_pairs(monkeypatch):
    """Weights of 0 or a batch of their own: both equal the run of the selected features."""
    feats, _ = problem(2)
    subsets = [["0", "1"], ["1", "2"], ["0", "2"]]
    found = {}
    for name, together in (("together", True), ("apart", False)):
        cost = (lambda self, rows, runs: 1.0) if together else (lambda self, rows, runs: rows * runs)
        monkeypatch.setattr(sweep_module._Solver, "_cost", cost)
        found[name] = sweep(feats, learning_rate=0.3, beta=0.5, groups=subsets, steps=9, margins_at=[9])
    for place, names in enumerate(subsets):
        members = np.flatnonzero(np.isin(feats.group, [int(name) for name in names]))
        own = descent(feats.select(members), DPO(beta=0.5), learning_rate=0.3, steps=9, margins_at=[9], alone=False)
        for many in found.values():
            run = many[place]
            assert run.settings["groups"] == names
            np.testing.assert_allclose(run.margins[9][members], own.margins[9], atol=1e-12)
            assert np.isnan(np.delete(run.margins[9], members)).all()
            for group in names:
                for split in ("train", "held_out"):
                    for quantity in QUANTITIES:
                        np.testing.assert_allclose(
                            run.final(quantity, group=group, split=split),
                            own.final(quantity, group=group, split=split),
                            atol=1e-11,
                        )


def test_descent_is_a_cell_of_the_grid():
    feats, _ = problem(5)
    (cell,) = sweep(feats, objective=GPOIPO(beta=0.2), learning_rate=0.1, steps=20, margins_at=[20])
    same(cell, descent(feats, GPOIPO(beta=0.2), learning_rate=0.1, steps=20, margins_at=[20], alone=False), 1e-13)


# one and the same run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.5, nesterov=True)])
@pytest.mark.parametrize("batch", ["full", 4])
@pytest.mark.parametrize("tokens", [2, 5])
def test_settings_that_are_one_run_are_solved_once_and_keep_their_own_numbers(optimizer, batch, tokens):
    """Equal eta beta^2: shared margins; log-probabilities, drift, policy accuracy and head scaled per setting."""
    feats, _ = problem(tokens)
    pairs = [(DPO(beta=0.5), 0.02), (DPO(beta=0.25), 0.08), (IPO(beta=0.5), 0.02), (IPO(beta=0.8), 0.02)]
    many = sweep(
        feats,
        objective=[each for each, _ in pairs],
        learning_rate=[0.02, 0.08],
        optimizer=optimizer,
        batch_size=batch,
        steps=15,
        margins_at=[15],
    )
    place = {
        (each.name, each.beta, rate): 2 * index + (rate > 0.05)
        for index, (each, _) in enumerate(pairs)
        for rate in (0.02, 0.08)
    }
    assert many.same_as == (0, 1, 2, 0, 4, 5, 4, 5)
    for each, rate in pairs:
        run = many[place[each.name, each.beta, rate]]
        (own,) = sweep(
            feats, objective=each, learning_rate=rate, optimizer=optimizer, batch_size=batch, steps=15, margins_at=[15]
        )
        same(run, own, 1e-11)
        np.testing.assert_allclose(run.chosen_changes[15], own.chosen_changes[15], atol=1e-11)
        assert run.joint_head is not None
        assert own.joint_head is not None
        np.testing.assert_allclose(run.joint_head, own.joint_head, atol=1e-12)
    first, shared = many[0], many[3]
    assert first.final("drift", group="0") < 0.6 * shared.final("drift", group="0")  # the control: scales do differ
    assert np.abs(first.chosen_changes[15] - shared.chosen_changes[15]).max() > 1e-3


def test_runs_that_only_look_alike_are_not_merged():
    feats, _ = problem(2)
    adam = sweep(feats, beta=[0.5, 0.25], learning_rate=[0.04, 0.16], optimizer="adam", steps=3)
    assert adam.same_as == (0, 1, 2, 3)
    seeds = sweep(feats, learning_rate=0.1, batch_size=["full", 4], seed=[0, 1], steps=3)
    assert seeds.same_as == (0, 0, 2, 3)  # a full batch draws nothing, so its seed is one and the same
    other = sweep(feats, objective=["sigmoid", "gpo_ipo"], learning_rate=0.1, steps=3)
    assert other.same_as == (0, 1)
    target = sweep(feats, objective="ipo", beta=[0.5, 0.8], learning_rate=0.1, steps=3, stop=Stop(loss=0.7))
    assert target.same_as == (0, 1)  # one path, but their losses reach a target at different steps


def test_sft_does_not_see_beta():
    feats, _ = problem(5)
    many = sweep(feats, objective=[SFT(beta=0.1), SFT(beta=0.4)], learning_rate=0.1, optimizer="adam", steps=8)
    assert many.same_as == (0, 0)
    assert many[1].final("margin", group="0") == pytest.approx(4 * many[0].final("margin", group="0"), rel=1e-12)
    assert many[1].final("loss", group="0") == many[0].final("loss", group="0")


# ends ---------------------------------------------------------------------------------------------------------------


def test_a_diverging_member_is_named_with_the_limit_and_leaves_the_others_alone():
    feats, _ = problem(5)
    limit = stability(feats, GPOIPO(beta=0.3))
    assert limit is not None
    rates = [0.2 * limit, 0.5 * limit, 8 * limit, 0.9 * limit]
    grid = {"objective": "gpo_ipo", "beta": 0.3, "steps": 60, "margins_at": [0, 60]}
    with pytest.warns(RuntimeWarning, match=rf"1 of 4 runs diverged.*gpo_ipo, beta 0\.3.*up to a rate of {limit:.4g}"):
        many = sweep(feats, learning_rate=rates, **grid)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the control: the others alone give no warning
        calm = sweep(feats, learning_rate=[rates[0], rates[1], rates[3]], **grid)
    for place, other in ((0, 0), (1, 1), (3, 2)):
        same(many[place], calm[other])
        assert "diverged_at" not in many[place].settings
    wild = many[2]
    assert 0 < wild.settings["diverged_at"] < 60
    assert max(wild.table["step"].to_pylist()) <= wild.settings["diverged_at"]
    assert set(wild.margins) == {0}
    assert np.isfinite(np.array(wild.table["loss"].to_pylist(), float)).all()


@pytest.mark.parametrize("route", ["weights", "gram", "rows"])
def test_overflow_is_a_divergence_and_not_a_number(route):
    feats, _ = problem(5)
    with pytest.warns(RuntimeWarning, match="1 of 2 runs diverged"):
        many = sweep(
            feats,
            objective="gpo_ipo",
            learning_rate=[0.1, 1e200],
            steps=6,
            route=route,
            stop=Stop(divergence=float("inf")),
            record="all",
        )
    assert many[1].settings["diverged_at"] <= 3
    assert np.isfinite(np.array(many[1].table["margin"].to_pylist(), float)).all()
    assert many[0].table["step"].to_pylist()[-1] == 6


def test_descent_names_its_divergence_too():
    feats, _ = problem(5)
    limit = stability(feats, GPOIPO(beta=0.3))
    with pytest.warns(RuntimeWarning, match=f"the joint run diverged at step .* up to a rate of {limit:.4g}"):
        run = descent(feats, GPOIPO(beta=0.3), learning_rate=1e100, steps=30)
    assert run.joint_head is None
    assert run.settings["diverged_at"] <= 30


@pytest.mark.parametrize("target", [{"loss": 0.6}, {"margin": 0.2}])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_stops_at_the_first_step_that_reaches_its_target(target, optimizer):
    """The step against an unstopped run that measured every step; slower runs go on to their own ends."""
    feats, _ = problem(2)
    train = ~feats.held_out
    rates = [0.02, 0.08, 1e-5]
    stopped = sweep(feats, beta=0.5, learning_rate=rates, optimizer=optimizer, steps=80, stop=Stop(**target))
    free = sweep(feats, beta=0.5, learning_rate=rates, optimizer=optimizer, steps=80, margins_at=range(81))
    ends = []
    for run, full in zip(stopped, free, strict=True):
        weights = feats.weight[train]
        margins = [full.margins[step][train] for step in range(81)]
        if "loss" in target:
            reached = [np.average(np.logaddexp(0, -each), weights=weights) <= target["loss"] for each in margins]
        else:
            reached = [np.average(each, weights=weights) >= target["margin"] for each in margins]
        first = int(np.argmax(reached)) if any(reached) else None
        assert run.settings.get("stopped_at") == first
        last = max(run.table["step"].to_pylist())
        assert last == (80 if first is None else first)
        steps, margin = full.curve("margin", group="0")
        if last in steps:
            assert run.final("margin", group="0") == pytest.approx(margin[list(steps).index(last)], rel=1e-10)
        ends.append(last)
    assert ends[1] < ends[0] <= ends[2] == 80


# the rest -----------------------------------------------------------------------------------------------------------


def test_group_means_are_exact_for_uneven_groups():
    """Means of a run against its own per-pair margins, groups of 1 to 7 pairs."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(7), np.arange(1, 8))
    n = len(group)
    feats = FeatureSet.from_arrays(
        rng.normal(size=(n, 4)), chosen=np.arange(n) % 2, rejected=1 - np.arange(n) % 2, group=group,
        held_out=rng.random(n) < 0.4,
    )  # fmt: skip
    (run,) = sweep(feats, beta=0.5, learning_rate=0.5, steps=10, margins_at=[10])
    for code, name in enumerate(feats.groups):
        for split, rows in (("train", ~feats.held_out), ("held_out", feats.held_out)):
            members = (feats.group == code) & rows
            if members.any():
                margins = run.margins[10][members]
                assert run.final("margin", group=name, split=split) == pytest.approx(margins.mean(), rel=1e-12)
                assert run.final("loss", group=name, split=split) == pytest.approx(
                    np.logaddexp(0, -margins).mean(), rel=1e-12
                )
                assert run.final("reward_accuracy", group=name, split=split) == np.mean(margins > 0)
    (row,) = (row for row in sweep(feats, beta=0.5, learning_rate=0.5, steps=10).rows())
    assert row["held_out_margin"] == pytest.approx(run.margins[10][feats.held_out].mean(), rel=1e-12)
    assert row["route"] == run.settings["route"]


def test_equal_grids_give_equal_bytes():
    feats, _ = problem(5)
    grid = {"learning_rate": [0.1, 0.2], "optimizer": ["sgd", "adam"], "batch_size": ["full", 4], "steps": 9}
    for first, second in zip(sweep(feats, **grid), sweep(feats, **grid), strict=True):
        assert first.table.equals(second.table)
    other = sweep(feats, **grid, seed=1)
    assert not other[1].table.equals(sweep(feats, **grid)[1].table)  # the control: minibatches hang on the seed


def test_what_cannot_be_done_is_refused_with_the_fix():
    feats, _ = problem(5)
    bare = FeatureSet.from_arrays(np.eye(4), chosen=[0, 1, 0, 1], rejected=[1, 0, 1, 0])
    responses = FeatureSet.from_arrays(chosen_features=np.eye(3), rejected_features=np.ones((3, 3)))
    with pytest.raises(DataError, match="SFT needs the reference log-probability of every answer token"):
        sweep(bare, objective=SFT(), learning_rate=0.1)
    with pytest.raises(DataError, match="SFT on the head needs one-token answers"):
        sweep(responses, objective=SFT(), learning_rate=0.1)
    with pytest.raises(ConfigError, match=r"weight_decay is 0\.1, which pulls the head itself towards 0"):
        sweep(bare, optimizer=AdamW(weight_decay=0.1), learning_rate=0.1)
    with pytest.raises(ConfigError, match="weight decay moves every row of the head"):
        sweep(feats, objective=SFT(), optimizer=AdamW(weight_decay=0.1), learning_rate=0.1)
    with pytest.raises(ConfigError, match="route 'gram' is not exact for adam"):
        sweep(feats, optimizer="adam", learning_rate=0.1, route="gram")
    with pytest.raises(ConfigError, match=r"learning_rate is -1\.0"):
        sweep(feats, learning_rate=[0.1, -1.0])
    with pytest.raises(ConfigError, match="group '9' is unknown"):
        sweep(feats, learning_rate=0.1, groups=[["9"]])
    with pytest.raises(DataError, match="all 14 pairs are held out"):
        sweep(feats.with_held_out(np.ones(14, dtype=bool)), learning_rate=0.1)
    with pytest.raises(ConfigError, match="margins_at asks for step 9"):
        sweep(feats, learning_rate=0.1, steps=3, margins_at=[9])
    with pytest.raises(ConfigError, match="the grid is empty"):
        sweep(feats, learning_rate=[])
    with pytest.raises(ConfigError, match="divergence is 1"):
        Stop(divergence=1)


def test_a_run_diverges_by_its_loss_in_multiples_of_the_first():
    """Twice the stable rate. IPO's ratios are 1/beta times one path: its losses differ by a factor, 25 and 2500 times
    here, and each ends when it is 100 times where it began, all at one step."""
    feats = gaussian_groups(30, groups=2, width=8)
    rate = 4 * stable_learning_rate(feats, IPO(beta=1.0))
    with pytest.warns(RuntimeWarning, match="4 of 4 runs diverged"):
        runs = sweep(
            feats, objective=[IPO(beta=beta) for beta in (0.02, 0.1, 1.0, 10.0)], learning_rate=rate, steps=400
        )
    firsts = [run.curve("loss", group="group 0")[1][0] for run in runs]
    np.testing.assert_allclose(firsts, [625, 25, 0.25, 0.0025])
    (step,) = {run.settings["diverged_at"] for run in runs}
    assert 1 < step < 400
