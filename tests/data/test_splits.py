import json
from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from atypia.core.errors import InputError, LeakError
from atypia.core.labels import SUBTYPES, parse_subtype
from atypia.data.splits import (
    MissingClass,
    Outer,
    Splits,
    make_splits,
    missing_classes,
    patient_of_slide,
    rows,
    stratify,
)

SHA = "a" * 64
LABEL = "label_expert1"


def manifest_of(figures):
    """A manifest from (patient, label) pairs."""
    return pd.DataFrame(figures, columns=["patient_id", LABEL])


def skewed_manifest(seed=0, patients=60):
    """Classes as uneven as those of AMi-Br, many patients with few figures."""
    rng = np.random.default_rng(seed)
    shares = np.array([59, 71, 154, 255, 253, 1349, 1527, 52]) / 3720
    return manifest_of(
        [
            (f"P{p:03}", SUBTYPES[c])
            for p in range(patients)
            for c in rng.choice(8, size=1 + int(rng.gamma(0.7, 25)), p=rng.dirichlet(shares * 12))
        ]
    )


def make(manifest, kind="holdout", seed=0, **options):
    return make_splits(manifest, SHA, kind=kind, label=LABEL, seed=seed, **options)


manifests = st.lists(
    st.tuples(st.sampled_from([f"P{i:02}" for i in range(20)]), st.sampled_from(["", *SUBTYPES])),
    max_size=120,
).map(lambda figures: manifest_of([*figures, *((f"P{i:02}", "nmf_metaphase") for i in range(9))]))


@settings(max_examples=25, deadline=None)
@given(
    manifest=manifests,
    kind=st.sampled_from(["holdout", "cv", "monte_carlo"]),
    seed=st.integers(0, 2**32),
    inner_folds=st.integers(2, 4),
)
def test_every_patient_stands_on_exactly_one_side_of_every_boundary(
    manifest, kind, seed, inner_folds
):
    splits = make(manifest, kind, seed, folds=3, repeats=2, inner_folds=inner_folds)
    patients = sorted(set(manifest["patient_id"]))
    for outer in splits.outer:
        assert sorted(chain(outer.test, *outer.inner)) == patients
        assert len(outer.inner) == inner_folds
        assert all([outer.test, *outer.inner])
        for i in range(inner_folds):
            training, validation = outer.member(i)
            assert validation == outer.inner[i]
            assert sorted([*training, *validation]) == list(outer.training)
    if kind == "cv":
        tested = Counter(chain.from_iterable(outer.test for outer in splits.outer))
        assert tested == dict.fromkeys(patients, 2)
    assert len(splits.outer) == {"holdout": 1, "cv": 6, "monte_carlo": 2}[kind]
    shuffled = manifest.sample(frac=1, random_state=1)
    assert make(shuffled, kind, seed, folds=3, repeats=2, inner_folds=inner_folds) == splits


def test_the_seed_decides(tmp_path):
    manifest = skewed_manifest()
    path = tmp_path / "split.csv"
    path.write_text(
        "patient_id,role\n"
        + "".join(f"P{p:03},{'test' if p < 9 else 'train'}\n" for p in range(60))
    )
    given = [make(manifest, path, seed=seed).outer[0] for seed in (1, 2)]
    assert given[0].test == given[1].test
    assert given[0].inner != given[1].inner
    one, other = (make(manifest, seed=seed).outer[0] for seed in (1, 2))
    assert one.test != other.test
    assert one.inner != other.inner
    repeated = make(manifest, "cv", folds=4, repeats=2)
    assert len(repeated.outer) == 8
    assert {o.test for o in repeated.outer[:4]} != {o.test for o in repeated.outer[4:]}


def unevenness(counts, fold_of, n_folds):
    """Root mean squared deviation from an equal share, and classes lacking in a fold."""
    held = np.stack([counts[fold_of == f].sum(0) for f in range(n_folds)])
    return np.sqrt(((held / counts.sum(0) - 1 / n_folds) ** 2).mean()), int((held == 0).sum())


@pytest.mark.parametrize("seed", range(5))
def test_stratify_is_at_least_as_balanced_as_scikit_learn(seed):
    manifest = skewed_manifest(seed)
    counts = pd.crosstab(manifest["patient_id"], manifest[LABEL])
    ours = stratify(counts.to_numpy(), np.full(3, 1 / 3), np.random.default_rng(seed))
    theirs = pd.Series(0, index=counts.index)
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=seed)
    for f, (_, test) in enumerate(folds.split(manifest, manifest[LABEL], manifest["patient_id"])):
        theirs[manifest["patient_id"].iloc[test].unique()] = f
    uneven, lacking = unevenness(counts.to_numpy(), ours, 3)
    their_uneven, their_lacking = unevenness(counts.to_numpy(), theirs.to_numpy(), 3)
    assert uneven <= their_uneven
    assert lacking <= their_lacking


def test_a_class_of_as_many_patients_as_folds_is_in_every_fold():
    # One patient holds nearly all of the rare class: only presence can be evened out.
    counts = np.array([[5, 0]] * 12 + [[40, 30], [1, 1], [1, 1]])
    for seed in range(20):
        fold_of = stratify(counts, np.full(3, 1 / 3), np.random.default_rng(seed))
        assert sorted(fold_of[12:]) == [0, 1, 2]


def test_a_class_of_two_patients_is_tested_though_half_of_it_is_more_than_its_share():
    manifest = manifest_of(
        [(f"P{i:02}", "nmf_metaphase") for i in range(40)]
        + [("P03", "nmf_ring"), ("P07", "nmf_ring")]
    )
    for seed in range(5):
        splits = make(manifest, seed=seed, test_fraction=0.1, inner_folds=2)
        assert len({"P03", "P07"} & set(splits.outer[0].test)) == 1


def test_holdout_holds_the_wanted_share_of_every_class():
    manifest = skewed_manifest(patients=200)
    splits = make(manifest, test_fraction=0.2)
    share = (
        manifest[rows(manifest, splits.outer[0].test)][LABEL].value_counts()
        / manifest[LABEL].value_counts()
    )
    assert share.between(0.17, 0.23).all()
    assert len(splits.outer[0].test) == pytest.approx(40, abs=8)


def test_monte_carlo_draws_each_test_part_anew_and_the_first_is_the_holdout():
    splits = make(skewed_manifest(), "monte_carlo", repeats=4, test_fraction=0.25)
    tests = [set(outer.test) for outer in splits.outer]
    assert len(tests) == 4
    assert tests[0] == set(make(skewed_manifest(), "holdout", test_fraction=0.25).outer[0].test)
    assert any(one & other for one, other in pairwise(tests))
    assert len({frozenset(test) for test in tests}) == 4


def test_missing_classes_are_named_with_their_part():
    outer = Outer(test=("A",), inner=(("B",), ("C",)))
    manifest = manifest_of(
        [("A", "nmf_ring"), ("B", "nmf_ring"), ("C", "nmf_metaphase"), ("C", "nmf_ring")]
    )
    missing = missing_classes(Splits("file", 0, SHA, (outer,)), manifest, LABEL)
    assert missing == [
        MissingClass(0, "test", "nmf_metaphase"),
        MissingClass(0, "validation of member 0", "nmf_metaphase"),
        MissingClass(0, "training of member 1", "nmf_metaphase"),
    ]
    assert str(missing[1]) == ("outer split 0, validation of member 0: no figure of nmf_metaphase")
    everywhere = missing_classes(Splits("file", 0, SHA, (outer,)), manifest, LABEL, ["amf_other"])
    assert len(everywhere) == 5


def test_unlabelled_figures_do_not_count_but_their_patients_are_placed():
    manifest = manifest_of([(f"P{i}", "nmf_ring" if i % 2 else "") for i in range(12)])
    splits = make(manifest, "cv", folds=3)
    assert sorted(chain.from_iterable(o.test for o in splits.outer)) == sorted(
        manifest["patient_id"]
    )
    assert missing_classes(splits, manifest, LABEL) == []


def test_splits_are_written_once(tmp_path):
    manifest = skewed_manifest()
    path = tmp_path / "splits.json"
    splits = make(manifest, seed=1)
    splits.write(path)
    splits.write(path)
    assert Splits.read(path, manifest, SHA) == splits
    content = path.read_bytes()
    with pytest.raises(InputError, match="already holds other splits"):
        make(manifest, seed=2).write(path)
    assert path.read_bytes() == content
    # The file of one run is a split for the next.
    assert make(manifest, path, seed=7) == splits


def written(tmp_path, manifest, change):
    """splits.json of a manifest, changed by hand."""
    path = tmp_path / "splits.json"
    make(manifest).write(path)
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return path


def test_a_leak_names_the_patients_and_comes_with_every_other_problem(tmp_path):
    def change(value):
        split = value["outer"][0]
        split["test"] += [split["inner"][0][0], "GHOST"]
        split["inner"][1].append(split["inner"][2][0])

    manifest = skewed_manifest()
    path = written(tmp_path, manifest, change)
    inner = json.loads(path.read_text())["outer"][0]["inner"]
    with pytest.raises(LeakError) as caught:
        Splits.read(path, manifest, "b" * 64)
    message = str(caught.value)
    assert f"both the test part and inner fold 0 but got ['{inner[0][0]}']" in message
    assert f"both inner fold 1 and inner fold 2 but got ['{inner[2][0]}']" in message
    assert "names 1 patients that the cohort lacks: ['GHOST']" in message
    assert "hash bbbbbbbbbbbb" in message
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format=2), "format 1 but got 2"),
        (lambda v: v.update(seed="x"), "'seed' as int but got 'x'"),
        (lambda v: v.update(outer=[]), "at least one outer split"),
        (lambda v: v["outer"][0].update(inner=[["P001"]]), "outer split 0: expected"),
        (lambda v: v["outer"][0]["inner"].append([]), "patients in inner fold 3 but got none"),
        (lambda v: v["outer"][0]["test"].append(v["outer"][0]["test"][0]), "more than once"),
        (lambda v: v["outer"][0]["test"].remove("P000"), "does not name 1 patients .*'P000'"),
    ],
)
def test_an_unsound_file_is_refused(tmp_path, change, message):
    # P000 tests, so that the last case can take it out of there.
    manifest = skewed_manifest()

    def swap_then_change(value):
        split = value["outer"][0]
        for part in (split["test"], *split["inner"]):
            if "P000" in part:
                part.remove("P000")
        split["test"].append("P000")
        change(value)

    path = written(tmp_path, manifest, swap_then_change)
    with pytest.raises(InputError, match=message) as caught:
        Splits.read(path, manifest, SHA)
    assert not isinstance(caught.value, LeakError)


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_csv_says_who_tests(tmp_path, separator):
    manifest = manifest_of([(f"P{i}", "nmf_ring") for i in range(8)])
    lines = ["patient_id,role", *(f"P{i},{'test' if i < 2 else 'Train'}" for i in range(8))]
    path = tmp_path / "split.csv"
    path.write_text("\n".join(lines).replace(",", separator), encoding="utf-8-sig")
    splits = make(manifest, path)
    assert splits.kind == "file"
    assert splits.outer[0].test == ("P0", "P1")


def test_a_csv_is_refused_with_all_its_problems(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("patient_id,role\nP0,test\nP0,train\nP1,testing\n,train\n")
    with pytest.raises(LeakError) as caught:
        make(manifest_of([("P0", "nmf_ring")]), path)
    assert [(p.row, p.column) for p in caught.value.problems] == [
        (4, "role"),
        (5, "patient_id"),
        (None, None),
    ]
    assert "['P0']" in str(caught.value)

    path.write_text("patient,role\nP0,test\n")
    with pytest.raises(InputError, match="columns patient_id and role, or dataset, slide and role"):
        make(manifest_of([("P0", "nmf_ring")]), path)

    path.write_text("patient_id,role\nP0,train\nP9,test\n")
    with pytest.raises(InputError) as caught:
        make(manifest_of([("P0", "nmf_ring"), ("P1", "nmf_ring")]), path)
    assert "the cohort lacks: ['P9']" in str(caught.value)
    assert "patients of the cohort: ['P1']" in str(caught.value)


def test_options_are_checked_together():
    with pytest.raises(InputError) as caught:
        make_splits(
            skewed_manifest(), SHA, kind="cv", label="label_nobody", seed=0,
            folds=1, repeats=0, test_fraction=1.0, inner_folds=1,
        )  # fmt: skip
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cv", "at least 5 patients"),
        ("holdout", "at least 3 patients outside the test part"),
        (
            "nonsense",
            r"cv, monte_carlo, leak_by_figure, all, domains\) or a file",
        ),
        ("table1", r"names 202 patients that the cohort lacks: \['MIDOG21_002'"),
    ],
)
def test_splits_that_cannot_be_made(kind, message):
    with pytest.raises(InputError, match=message):
        make(manifest_of([(f"P{i}", "nmf_ring") for i in range(3)]), kind)


def domains_manifest(sizes):
    """Patients in turn of domain 0, 1, ..., as many of each as `sizes` says, four figures each."""
    domains = [f"hospital {d}" for d, n in enumerate(sizes) for _ in range(n)]
    rows = [
        (f"P{p:02}", SUBTYPES[(p + c) % 8], domain)
        for p, domain in enumerate(domains)
        for c in range(4)
    ]
    return pd.DataFrame(rows, columns=["patient_id", LABEL, "domain"])


@settings(max_examples=8, deadline=None)
@given(
    sizes=st.lists(st.integers(4, 6), min_size=2, max_size=3),
    seed=st.integers(0, 2**32),
    inner_folds=st.integers(2, 4),
)
def test_each_domain_tests_once_and_trains_nothing_then(sizes, seed, inner_folds):
    manifest = domains_manifest(sizes)
    splits = make(manifest, "domains", seed, inner_folds=inner_folds)
    assert splits.kind == "domains"
    by_domain = manifest.groupby("domain")["patient_id"].agg(lambda ids: sorted(set(ids)))
    assert [list(outer.test) for outer in splits.outer] == list(by_domain)
    for outer in splits.outer:
        assert len(outer.inner) == inner_folds
        assert all(outer.inner)
        assert sorted([*outer.test, *outer.training]) == sorted(set(manifest["patient_id"]))
        tested = set(manifest.loc[rows(manifest, outer.test), "domain"])
        trained = set(manifest.loc[rows(manifest, outer.training), "domain"])
        assert len(tested) == 1
        assert not tested & trained
    shuffled = manifest.sample(frac=1, random_state=1)
    assert make(shuffled, "domains", seed, inner_folds=inner_folds) == splits


@settings(max_examples=10, deadline=None)
@given(manifest=manifests, seed=st.integers(0, 2**32), inner_folds=st.integers(2, 4))
def test_all_has_no_test_part_and_every_patient_validates_once(manifest, seed, inner_folds):
    splits = make(manifest, "all", seed, inner_folds=inner_folds)
    (outer,) = splits.outer
    assert (splits.kind, outer.test, len(outer.inner)) == ("all", (), inner_folds)
    assert all(outer.inner)
    patients = sorted(set(manifest["patient_id"]))
    assert list(outer.training) == patients
    validated = chain.from_iterable(outer.member(i)[1] for i in range(inner_folds))
    assert sorted(validated) == patients


@pytest.mark.parametrize("kind", ["all", "domains"])
def test_whole_splits_are_written_read_and_used_again(tmp_path, kind):
    manifest = domains_manifest([6, 6])
    path = tmp_path / "splits.json"
    splits = make(manifest, kind, seed=1)
    splits.write(path)
    splits.write(path)
    assert Splits.read(path, manifest, SHA) == splits
    assert make(manifest, path, seed=7) == splits
    with pytest.raises(InputError, match="already holds other splits"):
        make(manifest, kind, seed=2).write(path)


def test_all_asks_for_no_class_in_the_test_part_it_lacks():
    manifest = domains_manifest([8])
    splits = make(manifest, "all", inner_folds=2)
    assert {m.part for m in missing_classes(splits, manifest, LABEL, ["nmf_ring", "ghost"])} == {
        "training of member 0", "training of member 1",
        "validation of member 0", "validation of member 1",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["all", "domains"])
def test_a_leak_in_a_whole_split_is_refused_by_name(tmp_path, kind):
    manifest = domains_manifest([6, 6])
    path = tmp_path / "splits.json"
    make(manifest, kind).write(path)
    value = json.loads(path.read_text())
    inner = value["outer"][0]["inner"]
    inner[0].append(inner[1][0])
    path.write_text(json.dumps(value))
    with pytest.raises(LeakError, match=inner[1][0]):
        Splits.read(path, manifest, SHA)


def test_only_all_may_be_without_a_test_part_and_only_so(tmp_path):
    manifest = domains_manifest([6, 6])
    path = tmp_path / "splits.json"
    make(manifest, "all").write(path)
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"kind": "holdout"}))
    with pytest.raises(InputError, match="patients in the test part but got none"):
        Splits.read(path, manifest, SHA)
    split = value["outer"][0]
    split["test"].append(split["inner"][0].pop())
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=f"no test part .*'{split['test'][0]}'"):
        Splits.read(path, manifest, SHA)


def test_a_patient_of_two_domains_is_a_leak():
    manifest = domains_manifest([6, 6])
    manifest.loc[0, "domain"] = "hospital 1"
    with pytest.raises(LeakError, match=r"several: \['P00'\]"):
        make(manifest, "domains")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([12], r"at least two domains but got \['hospital 0'\]"),
        ([12, 2], "at least 3 patients outside the test part"),
    ],
)
def test_domains_that_cannot_be_split_by(sizes, message):
    with pytest.raises(InputError, match=message):
        make(domains_manifest(sizes), "domains")


def test_a_patch_without_a_domain_belongs_to_none():
    manifest = domains_manifest([6, 6])
    manifest.loc[manifest["patient_id"] == "P03", "domain"] = ""
    with pytest.raises(InputError, match=r"empty for patients \['P03'\]"):
        make(manifest, "domains")


@pytest.fixture(scope="module")
def ami_br_manifest(ami_br):
    table = pd.read_csv(ami_br / "AMI-BR.csv", dtype=str)
    return manifest_of(
        [
            (patient_of_slide(dataset, slide), parse_subtype(label))
            for dataset, slide, label in zip(
                table["dataset"], table["slide"], table["expert1_label"], strict=True
            )
        ]
    )


@pytest.mark.realdata
def test_table1_has_the_class_counts_of_the_reference_paper(ami_br_manifest):
    splits = make(ami_br_manifest, "table1")
    (outer,) = splits.outer
    test = ami_br_manifest[rows(ami_br_manifest, outer.test)]
    assert (len(outer.test), len(test)) == (40, 1342)
    counts = test[LABEL].value_counts()
    assert [counts[s] for s in SUBTYPES] == [21, 29, 51, 93, 76, 534, 522, 16]
    assert missing_classes(splits, ami_br_manifest, LABEL) == []
    for fold in outer.inner:
        held = ami_br_manifest[rows(ami_br_manifest, fold)][LABEL].value_counts()
        rest = ami_br_manifest[LABEL].value_counts() - counts
        assert (held / rest).between(0.28, 0.39).all()


@pytest.mark.realdata
def test_benchmark_has_the_published_test_slides(ami_br, ami_br_manifest):
    (outer,) = make(ami_br_manifest, "benchmark").outer
    assert len(outer.test) == 56
    assert rows(ami_br_manifest, outer.test).sum() == 826
    published = pd.read_csv(ami_br / "amibr_train_split.csv", dtype=str)
    assert set(outer.training) == set(map(patient_of_slide, published.dataset, published.slide))


@pytest.mark.realdata
def test_a_cohort_that_lacks_published_patients_is_refused(ami_br_manifest):
    lacking = ami_br_manifest[ami_br_manifest["patient_id"] != "TUPAC16_04_stitched1"]
    with pytest.raises(InputError, match=r"lacks: \['TUPAC16_04_stitched1'\]"):
        make(lacking, "table1")
