"""The processes that `accelerate launch` or torchrun started, as extraction and scoring see them."""

import os
from typing import Any

import torch

from prefdyn.errors import ConfigError
from prefdyn.store import is_main_process


class Team:
    """The processes that share one piece of work; alone unless a launcher started several."""

    def __init__(self, device: str, *, cache: bool) -> None:
        """Join the others, if there are any.

        Args:
            device: As asked for: "auto", "cpu", "cuda" or "cuda:N".
            cache: Whether what is computed is kept on disk, which is how the others get it.

        Raises:
            ConfigError: There are several processes and no cache.
        """
        self.state: Any = None
        self.share = (0, 1)
        """This process's number and how many there are."""
        self.main = is_main_process()
        """Whether this process writes results and shows progress."""
        if int(os.environ.get("WORLD_SIZE", "1")) <= 1 or "MASTER_ADDR" not in os.environ:
            return
        if not cache:
            raise ConfigError("several processes share their work through the cache; use cache=True, or one process")
        from accelerate import PartialState

        self.state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        self.share = (self.state.process_index, self.state.num_processes)

    def device(self, device: str) -> str:
        """The device of this process."""
        return str(self.state.device) if self.state is not None and device in ("auto", "cuda") else device

    def wait(self) -> None:
        """Until every process has done its share."""
        if self.state is not None:
            self.state.wait_for_everyone()
