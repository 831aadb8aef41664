import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.metrics import cohen_kappa_score

from atypia.core.errors import InputError
from atypia.core.labels import N_ATYPICAL, SUBTYPES
from atypia.data.cohort import Cohort
from atypia.data.splits import make_splits, missing_classes
from atypia.data.synthetic import (
    SCANNERS,
    Patient,
    chromatin_depth,
    draw_chromatin,
    make_synthetic_cohort,
    render,
)

FIGURES = 40
SIZE_PX, MPP = 128, 0.25


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_synthetic_cohort(
        tmp_path_factory.mktemp("synthetic") / "cohort", patients=12, patches=120, size_px=64
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Enough figures for statistics of the labels; too small to look at."""
    return make_synthetic_cohort(
        tmp_path_factory.mktemp("synthetic") / "many", patients=40, patches=800, size_px=16
    )


def test_the_folder_is_a_sound_cohort(cohort):
    again = Cohort.open(cohort.path, verify=True)
    assert again.sha256 == cohort.sha256
    assert len(cohort) == 120
    assert cohort.manifest["patient_id"].nunique() == 12
    assert cohort.raters == ("expert1", "expert2")
    assert cohort.source["license"] == "CC0-1.0"
    assert set(cohort.manifest["scanner"]) == {scanner.name for scanner in SCANNERS}
    assert cohort.manifest["domain"].nunique() == 2
    assert (cohort.manifest.groupby("patient_id")["scanner"].nunique() == 1).all()
    for path in cohort.image_paths():
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (64, 64))


def test_the_seed_decides_every_byte(tmp_path):
    options = {"patients": 4, "patches": 16, "size_px": 32}
    one, same, other = (
        make_synthetic_cohort(tmp_path / name, seed=seed, **options)
        for name, seed in (("one", 5), ("same", 5), ("other", 6))
    )
    for file in ("cohort.json", "manifest.csv", *one.manifest["file"]):
        assert (one.path / file).read_bytes() == (same.path / file).read_bytes()
    assert one.sha256 == same.sha256 != other.sha256


@pytest.mark.parametrize("label", ["label_expert1", "label_expert2"])
def test_every_subtype_is_in_every_fold(cohort, many, label):
    for each in (cohort, many):
        patients = each.manifest.groupby(label)["patient_id"].nunique()
        assert (patients[list(SUBTYPES)] >= 6).all()
        splits = make_splits(each.manifest, each.sha256, kind="holdout", label=label, seed=0)
        assert missing_classes(splits, each.manifest, label, SUBTYPES) == []


def test_nobody_is_left_without_a_figure(tmp_path):
    made = make_synthetic_cohort(tmp_path / "cohort", patients=20, patches=20, size_px=16)
    assert made.manifest["patient_id"].nunique() == 20


def test_the_raters_disagree_as_experts_do(many):
    manifest = many.manifest
    kappa = cohen_kappa_score(manifest["label_expert1"], manifest["label_expert2"])
    assert 0.52 < kappa < 0.70
    votes = {c: manifest[c] == "True" for c in many.vote_columns}
    for rater in ("expert1", "expert2"):
        atypical = manifest[f"label_{rater}"].isin(SUBTYPES[:N_ATYPICAL])
        assert (votes[f"atypical_{rater}"] == atypical).all()
    majority = votes.pop("majority_atypical")
    assert (majority == (sum(vote.astype(int) for vote in votes.values()) >= 2)).all()
    assert (votes["atypical_expert1"] == majority).mean() > (
        votes["atypical_expert2"] == majority
    ).mean()


def test_classes_and_patients_are_uneven(many):
    counts = many.manifest["label_expert1"].value_counts()
    assert counts["nmf_prometaphase"] > 3 * counts["nmf_ring"]
    figures = many.manifest["patient_id"].value_counts()
    assert figures.max() > 5 * figures.min()
    mix = many.manifest.groupby("patient_id")["atypical_expert1"].agg(
        lambda v: (v == "True").mean()
    )
    assert mix[figures[figures > 10].index].std() > 0.08


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        ({"patients": 2, "patches": 7, "size_px": 8}, 3),
        ({"patients": 30, "patches": 29}, 1),
        ({"mpp": 0.0}, 1),
    ],
)
def test_numbers_that_are_too_small(tmp_path, options, problems):
    with pytest.raises(InputError) as caught:
        make_synthetic_cohort(tmp_path / "cohort", **options)
    assert len(caught.value.problems) == problems
    assert not list(tmp_path.iterdir())


def masks(subtype):
    """The chromatin of some figures, free of noise."""
    return [
        chromatin_depth(draw_chromatin(subtype, np.random.default_rng(i)), SIZE_PX, MPP) > 0
        for i in range(FIGURES)
    ]


def areas(mask):
    """Area of each connected piece, µm², the largest first."""
    pieces, n = ndimage.label(mask, np.ones((3, 3)))
    return np.sort(ndimage.sum_labels(mask, pieces, range(1, n + 1)))[::-1] * MPP**2


def holes(mask):
    return (ndimage.binary_fill_holes(mask) & ~mask).sum() * MPP**2


def elongation(mask):
    """Ratio of the main axes."""
    values = np.linalg.eigvalsh(np.cov(np.argwhere(mask).T))
    return np.sqrt(values[1] / values[0])


def poles(mask):
    """How many times the chromatin is met, far out, on the way around its centroid."""
    y, x = np.nonzero(mask)
    centre = np.array([y.mean(), x.mean()])
    far = 0.6 * np.quantile(np.hypot(y - centre[0], x - centre[1]), 0.98)
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    circle = np.rint(centre[:, None] + far * np.stack([np.sin(angle), np.cos(angle)])).astype(int)
    met = ndimage.binary_closing(np.tile(mask[tuple(circle)], 3), np.ones(15))[360:720]
    return int((met & ~np.roll(met, 1)).sum())


def share(subtype, fact):
    return np.mean([fact(mask) for mask in masks(subtype)])


def test_a_ring_has_a_hole_and_a_plate_has_none():
    assert share("nmf_ring", lambda m: holes(m) > 2) == 1
    assert share("nmf_metaphase", lambda m: holes(m) < 0.5) == 1


def test_a_metaphase_is_long_and_a_prometaphase_is_not():
    assert share("nmf_metaphase", lambda m: elongation(m) > 1.8) > 0.9
    assert share("nmf_prometaphase", lambda m: elongation(m) < 1.8) > 0.9


def test_ana_and_telophase_are_two_equal_sets():
    def two_equal(mask):
        found = areas(mask)
        return len(found) == 2 and found[1] > 0.65 * found[0]

    assert share("nmf_anaphase_telophase", two_equal) > 0.9


def test_the_sets_of_a_bipolar_asymmetric_figure_differ():
    def two_unequal(mask):
        found = areas(mask)
        return len(found) == 2 and found[1] < 0.65 * found[0]

    assert share("amf_bipolar", two_unequal) > 0.85


def test_a_multipolar_figure_has_three_or_four_poles():
    assert share("amf_multipolar", lambda m: poles(m) in (3, 4)) > 0.85
    assert share("nmf_metaphase", lambda m: poles(m) == 2) > 0.9


def test_segregation_leaves_something_between_or_beside_the_sets():
    def as_it_should_be(mask):
        found = areas(mask)
        return len(found) <= 2 and found[-1] > 0.65 * found[0] and elongation(mask) > 1.8

    assert share("nmf_metaphase", as_it_should_be) > 0.9
    fragments = share("amf_segregation", lambda m: areas(m)[-1] < 5 and len(areas(m)) > 1)
    bridges = share("amf_segregation", lambda m: len(areas(m)) == 1)
    assert fragments > 0.4
    assert bridges > 0.15


def test_other_atypical_figures_are_scattered():
    assert share("amf_other", lambda m: len(areas(m)) >= 3) > 0.8


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda scanner: scanner.name)
def test_chromatin_is_the_darkest_thing_and_blue(scanner):
    """On the patch itself, red light is absorbed most where the chromatin lies."""
    for i in range(4):
        rng = np.random.default_rng(i)
        patch = render("nmf_prometaphase", Patient.draw(scanner, rng), rng, 96, MPP)
        pixels = np.asarray(patch, dtype=float)
        y, x = np.mgrid[:96, :96] - 47.5
        middle = pixels[np.hypot(y, x) < 6].mean(0)
        around = pixels[(np.hypot(y, x) > 20) & (np.hypot(y, x) < 26)].mean(0)
        assert middle.mean() < around.mean() - 40
        assert middle[2] > middle[0]
