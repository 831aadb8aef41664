"""Pretrained encoders by name (:file:`encoders.yaml`), and where to get their weights.

huggingface_hub fetches weights and has the settings: ``HF_HOME`` (the cache), ``HF_TOKEN``,
``HF_HUB_OFFLINE`` and ``HF_ENDPOINT``. Here its errors become sentences with a remedy.
"""

from __future__ import annotations

import difflib
import errno
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, Field

from atypia.core.errors import InputError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

Names = Literal["timm", "dinov2", "conch", "conch_v1_5"]
Embedding = Literal["class_token", "class_token_and_patch_mean", "attention_pool"]
Colours = tuple[float, float, float]
FAR: Final = 1.5
"""Factor from which on a scale or a size is another one than an encoder was trained at."""


class Encoder(BaseModel, frozen=True, extra="forbid"):
    """A pretrained vision transformer; the fields are explained in the YAML file."""

    name: str
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    file: str
    names: Names
    architecture: str
    options: dict[str, Any] = {}
    swiglu: bool = False
    embedding: Embedding
    features: int
    parameters: int
    size_px: int
    mpp: tuple[float, ...] = ()
    """Empty where it is not known, or where it was trained on photographs."""
    mean: Colours
    std: Colours
    licence: str
    commercial: bool | None = None
    gated: bool | None = None
    citation: str

    @property
    def page(self) -> str:
        """Address of its model card, where its terms are accepted."""
        return f"https://huggingface.co/{self.repository}"

    @property
    def gigabytes(self) -> float:
        """Size of its weights in fp32, in GB; what the hub keeps is about as large."""
        return self.parameters * 4 / 1e9

    def scale_problem(self, field_of_view_um: float, size_px: int) -> str | None:
        """Describe how far an input is from that of its training; None if near, or unknown."""
        mpp = field_of_view_um / size_px
        scale = min((_factor(mpp, trained) for trained in self.mpp), default=1)
        if max(scale, _factor(size_px, self.size_px)) <= FAR:
            return None
        trained = f" at {', '.join(f'{m:g}' for m in self.mpp)} µm per pixel" if self.mpp else ""
        return (
            f"{self.name} was trained on {self.size_px} px{trained} but is given {size_px} px at "
            f"{mpp:.3g} (input.size_px={size_px} input.field_of_view_um={field_of_view_um:g}): "
            "what it says of them may be worth less"
        )

    def __str__(self) -> str:
        """Name, repository, size and licence."""
        return f"{self.name} ({self.repository}, {self.gigabytes:.2g} GB, {self.licence})"


def _factor(a: float, b: float) -> float:
    return max(a / b, b / a)


@cache
def encoders() -> dict[str, Encoder]:
    """Every encoder by its name."""
    text = resources.files(__package__).joinpath("encoders.yaml").read_text("utf-8")
    return {
        name: Encoder.model_validate({"name": name, **fields})
        for name, fields in yaml.safe_load(text).items()
    }


def find_encoder(name: str) -> Encoder | None:
    """Find the encoder of that name; None where there is none."""
    return encoders().get(name)


def near_encoders(name: str) -> list[str]:
    """Name the encoders that a person may have meant, the nearest first."""
    return difflib.get_close_matches(name.lower(), encoders(), n=4)


_TOKENS_PAGE: Final = "https://huggingface.co/settings/tokens"
_OF_THE_DISK: Final = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


def cached_file(encoder: Encoder) -> Path | None:
    """Find the weights in the local cache; None where they are not."""
    return in_cache(encoder.repository, encoder.file, "model.safetensors")


def in_cache(repository: str, *names: str) -> Path | None:
    """Find the first of these files of a repository in the local cache; None: it has none."""
    from huggingface_hub import try_to_load_from_cache

    for name in dict.fromkeys(names):
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):  # not None, nor the mark of a file that does not exist
            return Path(found)
    return None


def fetch_weights(encoder: Encoder) -> Path:
    """Find the weights in the local cache, without a question to the hub, else download them.

    Raises:
        InputError: They cannot be had; with the reason and the remedies.
    """
    from huggingface_hub import hf_hub_download

    found = cached_file(encoder)
    if found is not None:
        return found
    try:
        return Path(hf_hub_download(encoder.repository, encoder.file))
    except Exception as error:  # of the client, the network and the disk
        raise InputError(explained(encoder, error)) from error


def access_problem(encoder: Encoder) -> str | None:
    """Ask the hub whether the weights may be downloaded; None if so, else why not, what to do."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(encoder.repository, encoder.file))
    except Exception as error:  # of the client and the network
        return explained(encoder, error)
    return None


def cache_folder() -> Path:
    """Where the hub's files are kept on this machine."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def token_source() -> str | None:
    """Where the token for the hub comes from; None where there is none."""
    from huggingface_hub import constants, get_token

    if get_token() is None:
        return None
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(variable):
            return variable
    return constants.HF_TOKEN_PATH


def explained(encoder: Encoder, error: BaseException) -> str:
    """Explain why the weights could not be had, with every way to get them."""
    reason, ways = _reason(encoder, error)
    folder = cache_folder() / f"models--{encoder.repository.replace('/', '--')}"
    ways += [
        f"copy the folder {folder.name} from the hub's cache of a machine that has the weights to "
        f"{folder.parent} (HF_HOME says where that is)",
        "give the file: model.weights=FILE",
    ]
    listed = "\n".join(f"  {i}. {way}" for i, way in enumerate(ways, 1))
    return f"The weights of {encoder} could not be had: {reason}.\nAny of these helps:\n{listed}"


def _reason(encoder: Encoder, error: BaseException) -> tuple[str, list[str]]:
    """Why, and what helps besides having the file."""
    from huggingface_hub import constants, errors

    # Of most refusals a download reports only that the file is not here, either.
    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, errors.HfHubHTTPError):
        return _refusal(encoder, error)
    if constants.HF_HUB_OFFLINE:
        why = f"HF_HUB_OFFLINE is set, and the cache {cache_folder()} does not hold them"
        return why, [
            f"unset HF_HUB_OFFLINE where this machine has a network{_and_consent(encoder)}"
        ]
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return str(error), [f"mend that: about {encoder.gigabytes:.2g} GB go to {cache_folder()}"]
    return (
        f"{constants.ENDPOINT} does not answer ({type(error).__name__}: {error}), and the cache "
        f"{cache_folder()} does not hold them",
        [
            "connect this machine to the network, or set HF_ENDPOINT to a mirror"
            f"{_and_consent(encoder)}"
        ],
    )


def _refusal(encoder: Encoder, error: HfHubHTTPError) -> tuple[str, list[str]]:
    """Why the hub has answered, but not with the weights, and what helps."""
    from huggingface_hub import constants, errors

    token, status = token_source(), error.response.status_code
    make_token = f"make a read token at {_TOKENS_PAGE} and set HF_TOKEN to it"
    words = f"{status}: {error.server_message}" if error.server_message else f"{status}"
    if isinstance(error, errors.GatedRepoError):
        accept = f"accept the terms at {encoder.page} with your account"
        if token is None:
            why = (
                "its authors ask for consent to their terms, and there is no token to say who asks"
            )
            return why, [f"{accept}, {make_token}"]
        return (
            "its authors ask for consent to their terms, and have not (yet) let in the account of "
            f"the token from {token}",
            [f"{accept}, and wait for the answer if they decide themselves"],
        )
    if status == 401:  # so it answers for a wrong token, too, and for what only some may see
        why = (
            f"the hub does not accept the token from {token}" if token else "the hub wants a token"
        )
        return why, [make_token]
    if isinstance(error, errors.EntryNotFoundError | errors.RepositoryNotFoundError):
        why = f"the hub has no {encoder.repository}/{encoder.file} (any more)"
        return why, [f"look at {encoder.page}: it may have moved; a newer Atypia may know where"]
    if status == 403 and token is not None:
        return f"the token from {token} may not read them (the hub answers {words})", [
            f"enable access to public gated repositories in the token's settings at {_TOKENS_PAGE} "
            "(a fine-grained token comes without it), or make a token of the type read"
        ]
    if status == 403:
        return f"the hub does not give them to everyone ({words})", [make_token]
    if status == 429 or status >= 500:
        why = "has had too many requests" if status == 429 else "is in trouble"
        return f"{constants.ENDPOINT} {why} ({words})", ["wait some minutes and try again"]
    return f"{constants.ENDPOINT} refuses them ({words})", [f"look at {encoder.page}"]


def _and_consent(encoder: Encoder) -> str:
    if not encoder.gated:
        return ""
    return f"; the download asks for consent at {encoder.page} and a token in HF_TOKEN"
