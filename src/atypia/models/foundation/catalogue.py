"""What is known of each encoder: :file:`catalogue.yaml` as values."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

Names = Literal["timm", "dinov2", "conch", "conch_v1_5"]
Embedding = Literal["class_token", "class_token_and_patch_mean", "attention_pool"]
Colours = tuple[float, float, float]
FAR: Final = 1.5
"""Factor from which on a scale or a size is another one than an encoder was trained at."""


class Encoder(BaseModel):
    """A pretrained vision transformer; the fields are explained in the YAML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        """Say how far an input is from what it was trained on; None if near, or not known."""
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
    text = resources.files(__package__).joinpath("catalogue.yaml").read_text("utf-8")
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
