"""Which of how many processes this is: one reading of the launcher's variables, and one line for each wrong one."""

import re
from typing import Any

import pytest

from prefdyn import _processes as room
from prefdyn.errors import ConfigError

THERE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def launcher(monkeypatch):
    """Sets the launcher's variables, and no others."""

    def set_variables(**given: str) -> None:
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PREFDYN_PEER_TIMEOUT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, (0, 1)),
        ({"WORLD_SIZE": ""}, (0, 1)),
        ({"WORLD_SIZE": "1"}, (0, 1)),
        ({"WORLD_SIZE": "1", "RANK": "0"}, (0, 1)),
        ({"RANK": "3"}, (0, 1)),  # somebody else's variable: no launcher sets it alone
        ({"WORLD_SIZE": "2", "RANK": "0", **THERE}, (0, 2)),
        ({"WORLD_SIZE": " 16 ", "RANK": " 15", **THERE}, (15, 16)),
    ],
)
def test_the_launcher_is_believed(launcher, given: dict[str, str], found):
    launcher(**given)
    assert room.processes() == found
    assert room.is_main_process() is (found[0] == 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', but must be a whole number of at least 1; give the number of"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', but must be a whole number of at least 1"),
        ({"WORLD_SIZE": "-2", "RANK": "0"}, "WORLD_SIZE is '-2', but must be"),
        ({"WORLD_SIZE": "2.0", "RANK": "0"}, "WORLD_SIZE is '2.0', but must be"),
        ({"WORLD_SIZE": "2", **THERE}, "WORLD_SIZE is 2, but RANK is not set, so no process is the first; start it"),
        ({"WORLD_SIZE": "2", "RANK": "one", **THERE}, "RANK is 'one', but must be a whole number of at least 0; give"),
        ({"WORLD_SIZE": "2", "RANK": "-1", **THERE}, "RANK is '-1', but must be a whole number of at least 0; give"),
        ({"WORLD_SIZE": "2", "RANK": "2", **THERE}, "RANK is 2, but with WORLD_SIZE 2 it must be from 0 to 1; give"),
        ({"WORLD_SIZE": "1", "RANK": "1"}, "RANK is 1, but with WORLD_SIZE 1 it must be from 0 to 0"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "WORLD_SIZE is 2, but MASTER_ADDR is not set, so the processes cannot meet"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a"}, "WORLD_SIZE is 2, but MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", "RANK": "1", **THERE, "MASTER_PORT": "http"}, "MASTER_PORT is 'http', but must be a"),
        ({"WORLD_SIZE": "2", "RANK": "1", **THERE, "MASTER_PORT": "70000"}, "MASTER_PORT is 70000, but ports end at"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("asked", [room.processes, room.is_main_process, lambda: room.refuse_several("prefdyn audit")])
def test_what_makes_no_sense_is_refused_by_all_who_ask(launcher, given: dict[str, str], said: str, asked: Any):
    launcher(**given)
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        asked()
    assert "\n" not in str(caught.value)


def test_a_command_for_one_process_refuses_several(launcher):
    launcher(WORLD_SIZE="2", RANK="1", **THERE)
    said = "`prefdyn audit` runs in one process, but WORLD_SIZE is 2; start it without a launcher, or unset WORLD_SIZE"
    with pytest.raises(ConfigError, match=said):
        room.refuse_several("prefdyn audit")
    launcher(WORLD_SIZE="1", RANK="0")
    room.refuse_several("prefdyn audit")


def test_patience_is_the_users(launcher):
    launcher()
    assert (room.peer_timeout(), room.arrival_timeout()) == (40, 60)
    launcher(PREFDYN_PEER_TIMEOUT="300")
    assert (room.peer_timeout(), room.arrival_timeout()) == (300, 450)
    for wrong in ("0", "-1", "soon", "nan", "inf"):
        launcher(PREFDYN_PEER_TIMEOUT=wrong)
        with pytest.raises(ConfigError, match=f"PREFDYN_PEER_TIMEOUT is '{wrong}', but must be a number of seconds"):
            room.peer_timeout()
