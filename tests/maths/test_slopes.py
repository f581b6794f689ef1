"""Every objective's slopes against differences of the objective itself."""

from dataclasses import replace

import numpy as np
import pytest

from prefdyn.errors import ConfigError
from prefdyn.maths.objectives import DPO, OBJECTIVES, SFT, RobustDPO
from prefdyn.maths.slopes import bend, by_beta, by_smoothing

MARGINS = np.array([-30.0, -2.0, -0.3, 0.0, 0.7, 1.9, 25.0])
EVERY = [OBJECTIVES[name](beta=0.4) for name in OBJECTIVES if name != "sft"] + [
    DPO(beta=0.4, label_smoothing=0.2),
    RobustDPO(beta=0.4, label_smoothing=0.2),
]


def central(value, at, h=1e-5):
    return (value(at + h) - value(at - h)) / (2 * h)


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_the_bend_is_the_slope_of_the_push(objective):
    want = -central(objective.push, MARGINS)
    np.testing.assert_allclose(bend(objective, MARGINS), want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("objective", EVERY, ids=repr)
def test_what_beta_and_smoothing_do_at_a_fixed_margin(objective):
    moved = {"beta": by_beta(objective, MARGINS)}
    if getattr(objective, "label_smoothing", 0):
        moved["label_smoothing"] = by_smoothing(objective, MARGINS)
    else:
        assert by_smoothing(objective, MARGINS)[0] is not None
    for name, (loss, push) in moved.items():
        at = getattr(objective, name)
        for read, found in (("loss", loss), ("push", push)):

            def value(x, read=read, name=name):
                return getattr(replace(objective, **{name: x}), read)(MARGINS)

            np.testing.assert_allclose(found, central(value, at), rtol=1e-7, atol=1e-6, err_msg=f"{name} {read}")


def test_sft_has_no_bend():
    with pytest.raises(ConfigError, match="no pull on a margin"):
        bend(SFT(), MARGINS)
