"""Where a model is, how it is loaded from there, and how whatever goes wrong is told in one line.

Frameworks are imported where they are used, so that a model that is not there is told at once.
"""

import contextlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefdyn._checks import nearest
from prefdyn.errors import ModelError, PrefdynError
from prefdyn.models import hub
from prefdyn.models.folders import ADAPTER, TOKENIZER_FILES, adapter_base, neighbours, refuse_config, refuse_unreadable
from prefdyn.models.identity import FileState, code_that_ran, folder_sha256, states
from prefdyn.provenance import content_hash

if TYPE_CHECKING:
    import torch

_LANGUAGE_MODEL = re.compile(r"CausalLM|LMHead|ForConditionalGeneration")
"""In the names of architectures that predict the next token."""
_KINDS = (
    ("ForSequenceClassification", "a classifier or reward model"),
    ("RewardModel", "a reward model"),
    ("ForTokenClassification", "a classifier of tokens"),
    ("ForQuestionAnswering", "a model that marks answers"),
    ("ForMaskedLM", "a model that fills gaps"),
    ("Model", "a trunk without a head, as embedding models are"),
)
_SPARE = re.compile(r"rotary_emb\.inv_freq$|\.(attn|attention)\.(masked_)?bias$|position_ids$")
"""Buffers that older checkpoints hold and that hold nothing which the configuration does not say."""
BUILTIN = Path(__file__).parent / "tiny"
"""The folder of the built-in model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a source gave."""

    model: Any
    tokenizer: Any
    commit: str | None
    """Of a hub model, or of the hub model under an adapter."""
    fingerprint: str
    """sha256 of what the numbers depend on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A place to load from: a folder, or a hub id and revision; with the base model below an adapter."""

    shown: str
    folder: Path | None
    hub_id: str | None
    revision: str | None
    trust_remote_code: bool
    base: "ModelSource | None" = None

    @classmethod
    def find(
        cls, name: str, *, revision: str | None, trust_remote_code: bool, above: tuple[Path, ...] = ()
    ) -> "ModelSource":
        """The place that a name means, after a look at every file of it that can be looked at without a library.

        Args:
            name: "builtin", a folder or a hub id.
            revision: Branch, tag or commit of a hub model.
            trust_remote_code: Code that the model ships may run.
            above: Adapters that are put on it.

        Raises:
            ModelError: There is no such place, or a file in it is missing, broken or not to be loaded.
        """
        trusted: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        if revision is not None and (name == "builtin" or _looks_like_path(name) or Path(name).is_dir()):
            raise ModelError(f"revision {revision!r} is for hub models, and {name!r} is none: leave it out")
        if name == "builtin":
            if not (BUILTIN / "config.json").is_file():
                raise ModelError(f"the built-in model is not in {BUILTIN}; install prefdyn again")
            return cls(shown="builtin", folder=BUILTIN, hub_id=None, revision=None, **trusted)
        try:
            folder = Path(name).expanduser()
            if folder.is_dir():
                source = cls(shown=folder.resolve().name, folder=folder, hub_id=None, revision=None, **trusted)
                if (folder / ADAPTER).is_file():
                    return replace(source, base=source._base(above))
                refuse_unreadable(folder, trust_remote_code=trust_remote_code)
                return source
            is_file = folder.is_file()
        except PrefdynError:
            raise
        except (OSError, RuntimeError, ValueError) as error:
            shown = name if len(name) <= 80 else name[:79] + "…"
            raise ModelError(f"model {shown!r} cannot be looked at ({error}); check the path") from error
        if is_file:
            raise ModelError(f"model {name!r} is a file; give the folder that holds config.json and the weights")
        if _looks_like_path(name):
            raise ModelError(f"model folder {name!r} does not exist{neighbours(folder)}")
        if nearest(name, ["builtin"]).startswith("; did"):
            raise ModelError(f"model {name!r} is unknown; did you mean 'builtin'?")
        return cls(shown=name, folder=None, hub_id=name, revision=revision, **trusted)

    def _base(self, above: tuple[Path, ...]) -> "ModelSource":
        assert self.folder is not None
        here = self.folder.resolve()
        if here in above:
            circle = " → ".join(path.name for path in (*above[above.index(here) :], here))
            raise ModelError(
                f"the adapter in {self.folder} is its own base ({circle}); write the model that it was trained on into "
                f"its {ADAPTER}"
            )
        named = adapter_base(self.folder)
        beside = self.folder / named
        return ModelSource.find(
            str(beside) if beside.is_dir() else named,
            revision=None,
            trust_remote_code=self.trust_remote_code,
            above=(*above, here),
        )

    # loading -----------------------------------------------------------------------------------------------------

    def load(self, options: Mapping[str, Any], place: "torch.device") -> Loaded:
        """Model and tokenizer, with what their files hash to. Nothing of them is read from the files any more.

        Args:
            options: Further ones of the model's `from_pretrained`.
            place: Device of the model.

        Raises:
            ModelError: Something cannot be read, or was changed meanwhile.
        """
        if self.folder is None:
            return self._from_hub(options, place)
        before = states(self.folder, code=self.trust_remote_code)
        if self.base is not None:
            return self._merged(self.base, options, before, place)
        model, tokenizer = self._read(str(self.folder), {"local_files_only": True}, options, place)
        own = self._hashed(before, model, model.config, tokenizer)
        return Loaded(model=model, tokenizer=tokenizer, commit=None, fingerprint=own)

    def _from_hub(self, options: Mapping[str, Any], place: "torch.device") -> Loaded:
        from transformers.utils.hub import cached_file

        hub_id = str(self.hub_id)
        offline = hub.is_offline()
        if offline and hub.cached_file(hub_id, "config.json", self.revision) is None:
            raise ModelError(self._unreachable())
        with hub.kept_offline(offline):
            with self.told("config.json"):
                config = Path(str(cached_file(hub_id, "config.json", revision=self.revision)))
            refuse_config(config, trust_remote_code=self.trust_remote_code)
            commit = config.parent.name  # the cache keeps snapshots/COMMIT/config.json
            model, tokenizer = self._read(hub_id, {"revision": commit}, options, place)
        if getattr(model, "peft_config", None):
            raise ModelError(
                f"hub model {hub_id!r} is an adapter, and adapters are read from a folder: "
                f"`hf download {hub_id} --local-dir DIR`, then give DIR"
            )
        snapshot = replace(self, folder=config.parent)
        own = snapshot._hashed(states(config.parent, code=self.trust_remote_code), model, model.config, tokenizer)
        return Loaded(model=model, tokenizer=tokenizer, commit=commit, fingerprint=own)

    def _merged(
        self, below: "ModelSource", options: Mapping[str, Any], before: Mapping[Path, FileState], place: "torch.device"
    ) -> Loaded:
        import torch

        from prefdyn.models.adapters import merged

        assert self.folder is not None
        base = below.load(options, torch.device("cpu"))
        given = [base.model]

        def again() -> Any:
            return given.pop() if given else below.load(options, torch.device("cpu")).model

        try:
            with _no_pickles(self.shown):
                model = merged(again, self.folder)
        except PrefdynError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:240]
            raise ModelError(f"the adapter in {self.folder} cannot be put on its base model ({said})") from error
        with self.told("model"):
            _settle(model, place)
        tokenizer = None
        if any((self.folder / name).is_file() for name in TOKENIZER_FILES):
            tokenizer = self._tokenizer(str(self.folder), {"local_files_only": True})
        own = self._hashed(before, tokenizer)
        return Loaded(
            model=model,
            tokenizer=base.tokenizer if tokenizer is None else tokenizer,
            commit=base.commit,
            fingerprint=content_hash([base.fingerprint, own]),
        )

    def _read(
        self, target: str, where: Mapping[str, Any], options: Mapping[str, Any], place: "torch.device"
    ) -> tuple[Any, Any]:
        import transformers

        common = {**where, "trust_remote_code": self.trust_remote_code}
        with self.told("config.json"):
            config = transformers.AutoConfig.from_pretrained(target, **common)
        if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING and not self.trust_remote_code:
            shown = (getattr(config, "architectures", None) or [type(config).__name__])[0]
            raise ModelError(f"{self.shown} is a {shown}, not a causal language model; choose a model of the GPT kind")
        if not self.trust_remote_code:
            self._refuse_other_kinds(config)
        with self.told("model"), _no_pickles(self.shown):
            kind: Any = transformers.AutoModelForCausalLM
            model, info = kind.from_pretrained(target, **common, **options, output_loading_info=True)
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ModelError(
                f"the checkpoint of {self.shown} lacks {len(missing)} tensors of a {type(model).__name__}, the first "
                f"is {missing[0]!r}; the weights do not belong to config.json, or are not complete"
            )
        unused = sorted(name for name in info["unexpected_keys"] if not _SPARE.search(name))
        if unused and not self.trust_remote_code:
            raise ModelError(
                f"the checkpoint of {self.shown} holds {len(unused)} tensors that a {type(model).__name__} does not "
                f"use, the first is {unused[0]!r}; it is another kind of model, or config.json is of another one"
            )
        with self.told("model"):
            _settle(model, place)
        return model, self._tokenizer(target, where)

    def _refuse_other_kinds(self, config: Any) -> None:
        """Refuse a checkpoint that says itself that it is no language model, though one could be made of its trunk."""
        declared = next(iter(getattr(config, "architectures", None) or ()), None)
        if declared is None:
            return
        if getattr(config, "is_encoder_decoder", False) and "CausalLM" not in declared:
            raise ModelError(
                f"{self.shown} is a {declared}, which reads a prompt with an encoder of its own, not a causal language "
                "model; choose a model of the GPT kind"
            )
        if _LANGUAGE_MODEL.search(declared):
            return
        what = next((what for end, what in _KINDS if declared.endswith(end)), "no language model")
        raise ModelError(
            f"{self.shown} is a {declared}, {what}: its checkpoint has no head that predicts tokens; give the language "
            "model that it was made from"
        )

    def _tokenizer(self, target: str, where: Mapping[str, Any]) -> Any:
        import transformers

        with self.told("tokenizer"), _no_pickles(self.shown):
            return transformers.AutoTokenizer.from_pretrained(target, **where, trust_remote_code=self.trust_remote_code)

    def _hashed(self, before: Mapping[Path, FileState], *parts: Any) -> str:
        """sha256 of the folder, and of the code that made some parts of it."""
        assert self.folder is not None
        ran = code_that_ran(*parts)
        found = folder_sha256(self.folder, before, code=bool(ran))
        return content_hash([found, *ran]) if ran else found

    # errors ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Whatever the block raises, told in one line.

        Args:
            what: What is being read: the model, its tokenizer, a file.

        Raises:
            ModelError: The block raised something.
        """
        try:
            yield
        except PrefdynError:
            raise
        except BaseException as error:
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":  # a library in Rust gives up
                raise ModelError(self._said(error, what)) from error
            raise

    def _said(self, error: BaseException, what: str) -> str:
        import torch

        said = " ".join(str(error).split())
        short = said if len(said) <= 240 else said[:239] + "…"
        if "trust_remote_code" in said:
            return f"{self.shown} ships Python code of its own; read it, then add --trust-remote-code to run it"
        if isinstance(error, ImportError):
            return f"{self.shown} needs a library that is not installed: {short}"
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return f"{self.shown} does not fit into memory ({short}); use --dtype bfloat16 or a smaller model"
        if self.folder is None:
            return self._said_of_hub(said, short, what)
        if "attn_implementation" in said or ("attention" in said and "implementation" in said):
            return f"{self.shown} cannot use the attention asked for ({short}); use --attn eager"
        return f"the {what} in {self.folder} cannot be read ({type(error).__name__}: {short}); copy the folder again"

    def _said_of_hub(self, said: str, short: str, what: str) -> str:
        low = said.lower()
        if "gated" in low or ("401" in low and "invalid" not in low):
            return (
                f"hub model {self.hub_id!r} is gated or private; run `hf auth login` with an account that may read it"
            )
        if "revision" in low and ("not a valid" in low or "not found" in low):
            return f"hub model {self.hub_id!r} has no revision {self.revision!r}; see its Files page for what it has"
        if "safetensors" in low:
            return f"hub model {self.hub_id!r} has no safetensors weights; convert it, or choose a model that has them"
        if "offline" in low or "connect" in low or "cached files" in low or "resolve" in low or "retries" in low:
            return self._unreachable()
        return f"the {what} of hub model {self.hub_id!r} cannot be read ({short}); check the id, or give a local folder"

    def _unreachable(self) -> str:
        return (
            f"hub model {self.hub_id!r} is not in the local hub cache and the hub cannot be reached; "
            "give a local folder, or go online once"
        )


def _looks_like_path(name: str) -> bool:
    return (
        name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or name.endswith("/")
        or "\\" in name
        or ("/" in name and Path(name).parent.is_dir())
    )


def _settle(model: Any, place: "torch.device") -> None:
    """Put a model on its device, and weights that are still pages of their file into memory.

    Whoever writes over that file later, as saving a model anew does, would else change the model under the work.
    """
    model.to(place)
    mapped = _mapped_files()
    moved: dict[tuple[Any, ...], torch.Tensor] = {}
    for part in (*model.parameters(), *model.buffers()):
        at = part.data_ptr()
        if part.device.type == "cpu" and (mapped is None or any(low <= at < high for low, high in mapped)):
            key = (at, part.shape, part.stride(), part.dtype)
            part.data = moved.setdefault(key, part.data.clone())


def _mapped_files() -> list[tuple[int, int]] | None:
    """Address ranges of this process that are safetensors files; None where the system does not say."""
    found = []
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            for line in file:
                if ".safetensors" in line or "/blobs/" in line:
                    low, _, high = line.split(None, 1)[0].partition("-")
                    found.append((int(low, 16), int(high, 16)))
    except (OSError, ValueError):
        return None
    return found


@contextlib.contextmanager
def _no_pickles(shown: str) -> Iterator[None]:
    """Nothing is unpickled for as long as the block lasts, whatever a model's files ask for."""
    import torch

    def refuse(file: Any, *_: Any, **__: Any) -> Any:
        name = Path(os.fspath(file)).name if isinstance(file, str | os.PathLike) else "a file"
        raise ModelError(f"{shown} asks for {name}, which is pickled and can run code, so it is not read; convert it")

    plain = torch.load
    torch.load = refuse
    try:
        yield
    finally:
        torch.load = plain


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Transformers without log lines, progress bars or warnings, for as long as the block lasts."""
    import transformers

    talk = transformers.utils.logging
    level, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity(50)
    talk.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()
