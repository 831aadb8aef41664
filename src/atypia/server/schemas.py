"""What goes in and comes out, typed: the models behind the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from atypia.core.choices import BALANCED
from atypia.core.labels import ANSWERED, STATUSES, SUBTYPES

Mpp = Annotated[float, Field(ge=0.01, le=10, description="µm per pixel", examples=[0.25])]
Subtype = Annotated[str, Field(json_schema_extra={"enum": list(SUBTYPES)})]
Status = Annotated[str, Field(json_schema_extra={"enum": list(STATUSES)})]
Probability = Annotated[float, Field(ge=0, le=1)]
SkipBad = Annotated[
    bool, Field(description="Answer the good ones and list what is wrong with the others.")
]

# A flat image of 64 × 64 px.
_CELL = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAUElEQVR42u3PQQkAAAgEsOsfwDi+jWUE38Jg"
    "BZapfi0CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICApcFiFjB8N33Cv4A"
    "AAAASUVORK5CYII="
)


class _Strict(BaseModel, extra="forbid"):
    """Unknown keys are refused."""


class Patch(_Strict):
    """One image, or a stack with one patch per page, centred on one mitotic figure."""

    image: Annotated[
        str,
        Field(
            description="A PNG, JPEG, TIFF, BMP or WebP file, 8-bit RGB, in base64.",
            json_schema_extra={"contentEncoding": "base64"},
        ),
    ]
    patch_id: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1000,
            description="Comes back with the answer; its number, from 0, where there is none.",
        ),
    ] = None
    mpp: Annotated[Mpp | None, Field(description="µm per pixel of this image.")] = None


class PatchesRequest(_Strict):
    """Patches to classify."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"mpp": 0.25, "patches": [{"patch_id": "cell", "image": _CELL}]}
        }
    )

    patches: Annotated[list[Patch], Field(min_length=1)]
    mpp: Annotated[
        Mpp | None,
        Field(description="Of all images that do not say it themselves; TIFF files may."),
    ] = None
    skip_bad: SkipBad = False


class Centre(_Strict):
    """A mitotic figure found on a slide."""

    id: Annotated[str, Field(max_length=1000)] = ""
    x: Annotated[float, Field(allow_inf_nan=False)]
    y: Annotated[float, Field(allow_inf_nan=False)]


class CandidatesRequest(_Strict):
    """Candidates of a slide to classify."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"units": "px", "candidates": [{"id": "a", "x": 1200.5, "y": 830}]}
        }
    )

    candidates: Annotated[list[Centre], Field(description="None where nothing was found.")]
    units: Annotated[
        Literal["px", "um"],
        Field(description="Pixels of the full resolution, or µm from the slide's corner."),
    ]
    mpp: Annotated[
        Mpp | None, Field(description="Of the slide, where it does not say it or says it wrongly.")
    ] = None
    skip_bad: SkipBad = False


def _is_file(value: Any) -> Any:
    if not hasattr(value, "filename"):
        raise PydanticCustomError("file", "Input should be one file")
    return value


File = Annotated[
    Any, AfterValidator(_is_file), WithJsonSchema({"type": "string", "format": "binary"})
]
"""A ``starlette.datastructures.UploadFile``."""
Switch = Annotated[
    bool,
    # Forms hold texts alone.
    BeforeValidator(lambda text: text == "true" if text in ("true", "false") else text),
    Field(strict=True, description="Answer the good ones and list what is wrong with the others."),
]


class _Form(_Strict):
    """Fields of a form, each with the list of its values."""

    @model_validator(mode="before")
    @classmethod
    def _single(cls, sent: dict[str, list[Any]]) -> dict[str, Any]:
        """Take the value of a field that holds one out of its list."""
        several = {k for k, f in cls.model_fields.items() if get_origin(f.annotation) is list}
        return {k: v[0] if len(v) == 1 and k not in several else v for k, v in sent.items()}


class PatchesForm(_Form):
    """Patches to classify, as files."""

    images: Annotated[
        list[File],
        Field(
            min_length=1,
            description="PNG, JPEG, TIFF, BMP or WebP, 8-bit RGB. File names become patch ids.",
        ),
    ]
    mpp: Annotated[
        list[Mpp],
        Field(description="Of all images, or of each in their order; TIFF files may have theirs."),
    ] = []
    skip_bad: Switch = False


class CandidatesForm(_Form):
    """Candidates of a slide to classify, as a file."""

    candidates: Annotated[
        File, Field(description="GeoJSON of QuPath, MIDOG or COCO JSON, or a CSV of centres.")
    ]
    units: Annotated[
        Literal["px", "um"] | None,
        Field(description="Of the coordinates, where the file does not name them."),
    ] = None
    mpp: Mpp | None = None
    skip_bad: Switch = False
    all_classes: Switch = False


class Prediction(BaseModel):
    """The answer on one figure, as ``atypia predict --out FILE.json`` writes it."""

    model_config = ConfigDict(extra="allow")

    patch_id: str
    patient_id: str
    domain: str
    fold: str
    probabilities: Annotated[
        dict[str, Probability], Field(description="Of each subtype; they sum to 1.")
    ]
    p_atypical: Probability
    threshold: Annotated[
        float | None, Field(description="p_atypical from which on a figure is called atypical.")
    ] = None
    operating_point: Annotated[str, Field(examples=["balanced"])] = BALANCED
    predicted_atypical: Annotated[bool | None, Field(description="Null: there is no call.")]
    predicted_subtype: Annotated[Subtype | None, Field(description="Null: there is no call.")]
    conformal_set: Annotated[
        list[Subtype],
        Field(description="Subtypes that the figure may have; absent where the model has no sets."),
    ] = []
    p_mitosis: Annotated[
        Probability | None,
        Field(
            description="That it is a mitotic figure; null where the model does not estimate it."
        ),
    ] = None
    status: Annotated[
        Status,
        Field(description="Why there is no call, where it is not `answered`."),
    ] = ANSWERED


class Figure(Prediction):
    """The answer on one candidate, as ``atypia slide --out FILE.json`` writes it."""

    slide: str
    x_px: float
    y_px: float
    x_um: float
    y_um: float


class Answered(BaseModel):
    """What every answer holds."""

    model: Annotated[str, Field(examples=["released"])]
    quality: Annotated[str, Field(examples=["best"])]
    operating_point: Annotated[str, Field(examples=["balanced"])] = BALANCED
    threshold: Annotated[
        float | None, Field(description="p_atypical from which on a figure is called atypical.")
    ] = None
    problems: Annotated[
        list[str], Field(description="What was left out, and why: one sentence each.")
    ]
    not_answered: Annotated[
        dict[str, int], Field(description="Number of figures without a call, by status.")
    ] = {}


class PatchAnswers(Answered):
    """The answers on patches, in the order of the images and their pages."""

    warnings: list[str]
    predictions: list[Prediction]


class SlideAnswers(Answered):
    """The answers on the candidates of a slide."""

    slide: str
    width_px: int
    height_px: int
    mpp: float
    figures: list[Figure]


class Slides(BaseModel):
    """The slides that the server was started with."""

    slides: list[str]


class Refused(BaseModel):
    """Why there is no answer."""

    problems: Annotated[list[str], Field(description="One sentence for each thing that is wrong.")]


class Health(BaseModel):
    """That the server is up, and how busy it is."""

    status: Literal["ok"] = "ok"
    requests: Annotated[int, Field(description="Under way.")]
    waiting_patches: Annotated[int, Field(description="Accepted and not answered yet.")]


class About(BaseModel):
    """What answers: the package and the model."""

    atypia: Annotated[str, Field(description="Version of the package.", examples=["0.1.0"])]
    model: Annotated[str, Field(examples=["released"])]
    quality: Annotated[str, Field(examples=["best"])]
    backend: Annotated[str, Field(examples=["torch"])]
    created_with: str
    files: Annotated[dict[str, str], Field(description="SHA-256 of each file of the model.")]
    classes: list[str]
    operating_point: Annotated[str, Field(examples=["balanced"])] = BALANCED
    thresholds: Annotated[dict[str, float], Field(examples=[{"atypical": 0.5}])]
    conformal: Annotated[
        dict[str, Any] | None, Field(description="How sets are made; null where there are none.")
    ]
    field_of_view_um: float
    intended_use: str
