"""What the guard rejects, rightly and wrongly, and what it costs.

    python benchmarks/guard.py --shared ../shared > docs/results/guard.md

Figures and nuclei are judged by heads that were fitted anew without them, in one view each: those
of the test patients of the split ``table1`` by heads from all others; those of AtNorM-MD, other
tumours and species, by heads from the other groups and from AMi-Br, and by heads from AMi-Br
alone. The networks are those in the package, which saw four fifths of AMi-Br in their training and
nothing of AtNorM-MD. Off-centre nuclei are the two darkest spots of a crop 8 µm and
more from its centre. Nobody has looked at them: some are mitotic figures that are not listed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from atypia.classifiers.ensemble import Ensemble
from atypia.classifiers.field_quality import field_status
from atypia.classifiers.loading import load_ensemble
from atypia.core.labels import ANSWERED
from atypia.data.look_alikes import FIGURE, MADE, NEAR, NUCLEUS, STROMA, GuardExamples
from atypia.training.guard_fit import fit_heads, guard_features, mean_scores

sys.path.append(str(Path(__file__).parents[1] / "docs"))
from make_guard import (  # type: ignore[import-not-found]
    MPP,
    neighbours,
    read_ami_br,
    read_atnorm,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from atypia.classifiers.protocol import SubtypeModel

    Mask = npt.NDArray[np.bool_]

FIELD_UM = 18.0
POINTS = 1000
SLIDE_MPP = 0.499
SEED = 0
FOLDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True)
    shared = parser.parse_args().shared
    print("# The guard\n\n`python benchmarks/guard.py --shared ../shared`\n")
    judged_without(shared)
    models = {quality: load_ensemble("released", quality) for quality in ("best", "fast")}
    nothing(shared, models)
    cost(shared, models)


def judged_without(shared: Path) -> None:
    """Fit heads without some patients, and let them judge these."""
    patches, table = read_ami_br(shared / "ami-br")
    more, groups = read_atnorm(shared / "atnorm-md")
    others = [*neighbours(table), *[np.empty((0, 2), np.int64)] * len(more)]
    examples, features, restained = guard_features(
        Ensemble.load(), np.concatenate([patches, more]), MPP, SEED, others
    )
    names = np.concatenate([table["patient"].to_numpy(dtype=str), groups])
    domains = np.concatenate([table["dataset"].to_numpy(dtype=str), np.full(len(more), "AtNorM")])
    patient, domain = names[examples.rows], domains[examples.rows]
    roles = pd.read_csv(shared / "ami-br/table1_split.csv")
    tests = roles[roles["role"] == "test"]
    is_test = np.isin(patient, (tests["dataset"] + "_" + tests["slide"].astype(str)).tolist())
    other = domain == "AtNorM"
    fold = np.array(
        [int(name[1:]) % FOLDS if here else -1 for name, here in zip(patient, other, strict=True)]
    )
    parts = {
        "test patients of `table1`": [(~is_test, is_test)],
        "AtNorM-MD, other groups among the training": [
            (fold != k, fold == k) for k in range(FOLDS)
        ],
        "AtNorM-MD, AMi-Br alone among the training": [(~other, other)],
    }
    print("## Figures and nuclei that no head was trained on\n")
    head()
    for name, own in (("three networks", features), ("one network", features[:1])):
        for words, pairs in parts.items():
            given = [judge(own, examples, restained, patient, domain, *pair) for pair in pairs]
            kinds, rejected, score = (np.concatenate(part) for part in zip(*given, strict=True))
            row(f"{words}, {name}", kinds, rejected, score)
    print()


def judge(
    features: list[npt.NDArray[np.float32]],
    examples: GuardExamples,
    restained: Mask,
    patient: npt.NDArray[np.str_],
    domain: npt.NDArray[np.str_],
    train: Mask,
    wanted: Mask,
) -> tuple[npt.NDArray[np.str_], Mask, npt.NDArray[np.floating[Any]]]:
    """Kinds, whether they are rejected, and logits of what is wanted and not restained."""
    judged = (examples.kinds == FIGURE) & ~restained
    heads, guard = fit_heads(
        [x[train] for x in features], examples.is_figure[train], judged[train], patient[train],
        domain[train], SEED,
    )  # fmt: skip
    shown = wanted & ~restained
    scores = mean_scores(heads, [x[shown] for x in features])
    logits = guard.slope * scores[:, 0] + guard.intercept
    return examples.kinds[shown], np.asarray(guard.status(scores) != ANSWERED), logits


def head() -> None:
    print(
        "| | figures | falsely rejected | up to 3 µm off | nuclei | rejected | at 1 % false "
        "rejection | stroma | drawn look-alikes |\n|---|---|---|---|---|---|---|---|---|"
    )


def row(
    name: str, kinds: npt.NDArray[np.str_], rejected: Mask, score: npt.NDArray[np.floating[Any]]
) -> None:
    """Print the shares of each kind that are rejected."""
    at_one = np.quantile(score[kinds == FIGURE], 0.01)
    nuclei, drawn = kinds == NUCLEUS, np.isin(kinds, MADE)
    cells = [
        f"{(kinds == FIGURE).sum():,}", percent(rejected[kinds == FIGURE]),
        percent(rejected[kinds == NEAR]), f"{nuclei.sum():,}", percent(rejected[nuclei]),
        percent(score[nuclei] < at_one), percent(rejected[kinds == STROMA]),
        percent(rejected[drawn]),
    ]  # fmt: skip
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def percent(mask: Mask) -> str:
    return f"{100 * mask.mean():.1f} %"


def nothing(shared: Path, models: dict[str, SubtypeModel]) -> None:
    """Count what is answered where there is no mitotic figure."""
    slide = np.asarray(slide_pixels(shared / "slides/small_HE.svs"))
    rng = np.random.default_rng(SEED)
    dark = ndimage.gaussian_filter(-np.log10(np.maximum(slide, 1) / 255).mean(axis=2), 1.5)
    tissue = dark > 0.06
    limit = np.quantile(dark[tissue], 0.75)
    side = round(FIELD_UM / SLIDE_MPP * 1.5)
    inner = np.zeros(dark.shape, bool)
    inner[side:-side, side:-side] = True
    places = {
        "whole slide, off nuclei": np.argwhere(inner & (dark < limit)),
        "its tissue, off nuclei": np.argwhere(inner & tissue & (dark < limit)),
        "its glass": np.argwhere(inner & (ndimage.maximum_filter(dark, side) < 0.06)),
        "its darkest quarter": np.argwhere(inner & (dark > limit)),
    }
    sets = {}
    for name, at in places.items():
        chosen = at[rng.choice(len(at), min(POINTS, len(at)), replace=False)] - side // 2
        sets[name] = np.stack([slide[y : y + side, x : x + side] for y, x in chosen]), SLIDE_MPP
    black = np.zeros((200, 80, 80, 3), np.uint8)
    sets["black"] = black, MPP
    for ink, colour in {
        "blue": (40, 60, 160),
        "green": (40, 140, 80),
        "black": (30, 30, 35),
    }.items():
        noise = rng.normal(0, 4, black.shape)
        sets[f"{ink} pen"] = (np.array(colour) + noise).clip(0, 255).astype(np.uint8), MPP
    print("## Where there is no mitotic figure\n\n| | points | `best` answers | `fast` answers |")
    print("|---|---|---|---|")
    for name, (patches, mpp) in sets.items():
        shown = {"best": patches[:200], "fast": patches}
        cells = [percent(models[q].answer(shown[q], mpp).answered) for q in ("best", "fast")]
        print(f"| {name} | {len(patches):,} (`best`: {len(shown['best'])}) | {' | '.join(cells)} |")
    print(
        "\nThe darkest quarter is nuclei of a slide of which nobody has listed mitotic figures.\n"
    )


def slide_pixels(file: Path) -> Image.Image:
    import openslide

    slide = openslide.OpenSlide(file)
    return slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")


def cost(shared: Path, models: dict[str, SubtypeModel]) -> None:
    """Time with and without heads, in turn, and of the pixels; medians."""
    files = sorted((shared / "ami-br/patches/normal").glob("*.png"))[:64]
    patches = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    pixels = median(lambda: field_status(patches, MPP, FIELD_UM))
    print("## Cost\n\n| | answer, ms a figure | pixels | heads | share |\n|---|---|---|---|---|")
    for name, model in models.items():
        assert isinstance(model, Ensemble)
        n = 8 if name == "best" else 64
        whole = median(lambda m=model, n=n: m.answer(patches[:n], MPP)) / n
        heads = head_time(model) / 64
        share = (pixels / 64 + heads) / whole
        print(
            f"| `{name}` | {1e3 * whole:.2f} | {1e3 * pixels / 64:.3f} | {1e3 * heads:.3f} "
            f"| {100 * share:.1f} % |"
        )


def head_time(model: Ensemble) -> float:
    """Seconds that heads take for 64 figures in all views, the middles of maps included."""
    import torch

    from atypia.models.lite import middle

    views = 8 if model.tta else 1
    maps = [torch.rand(64, c, s, s) for c, s in ((40, 10), (80, 5), (112, 5))]
    seen = torch.rand(64, len(model.heads[0].mean))

    def once() -> None:
        for first in maps:
            middle(first)
        model.heads[0](seen)

    with torch.inference_mode():
        return views * len(model.heads) * median(once)


def median(run: Any, times: int = 9) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


if __name__ == "__main__":
    main()
