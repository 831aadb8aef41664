"""What reporting guidelines ask for, filled with what a run knows of itself.

CLAIM 2024: Tejani et al., Radiology: Artificial Intelligence 2024, for studies of imaging with AI.
TRIPOD+AI: Collins et al., BMJ 2024, for studies of prediction models. Items are given by number and
in short words of ours; the guidelines' own words count. A run knows its data, its split, its model
and its measures. It knows nothing of patients, ethics or funding, and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from atypia._version import __version__
from atypia.core.config import LEAK
from atypia.reports.html import Html, join, table, tag
from atypia.reports.words import level, number, rater_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from atypia.reports.report_input import ReportInput

NOT_REPORTED: Final = "Not reported"
_OTHER_KINDS: Final = {
    "rules": "Hand-written rules on the shape of the chromatin",
    "hybrid": "A small classifier on a network’s probabilities and on rules",
}


@dataclass(frozen=True)
class Reported:
    """What a report says on an item."""

    text: str
    whole: bool = True
    """False: it answers a part of the item."""
    see: str | None = None
    """Section of the page that tells it."""


@dataclass(frozen=True)
class ChecklistItem:
    """One item of a guideline."""

    number: str
    asks: str
    tell: Callable[[_Facts], Reported | None] | None = None
    """None, or giving None: the run does not know."""


class _Facts:
    """What a report knows, by the names that items ask for."""

    def __init__(self, report: ReportInput) -> None:
        self.report = report
        self.metrics = report.metrics
        parsed = yaml.safe_load(report.config_yaml) if report.config_yaml else None
        self.config: Mapping[str, Any] = parsed if isinstance(parsed, dict) else {}
        self.run: Mapping[str, Any] = report.run or {}

    def setting(self, *path: str) -> Any:
        """One setting of the configuration; None where it is not there."""
        value: Any = self.config
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def leaks(self) -> bool:
        return self.report.split_kind == LEAK

    @property
    def networks(self) -> int | None:
        """How many answer: fewer than inner folds where only some were trained."""
        count = self.setting("ensemble", "trained") or self.setting("ensemble", "members")
        return None if count is None else int(count)

    def technique(self) -> Reported | None:
        backbone, kind = self.setting("model", "backbone"), self.setting("kind")
        if kind in _OTHER_KINDS:
            return Reported(_OTHER_KINDS[kind], see="configuration")
        if backbone is None:
            return None
        what = "one network" if self.networks == 1 else f"an ensemble of {self.networks} networks"
        return Reported(f"Deep learning: {what} ({backbone})", see="configuration")

    def title(self) -> Reported | None:
        found = self.technique()
        return found and Reported(found.text + ". A title is the author’s to write", whole=False)

    def summary(self) -> Reported | None:
        return Reported("Data and results are summed up at the top; no conclusions", whole=False)

    def use(self) -> Reported | None:
        return Reported(
            "For research use. Not a medical device. The clinical role is not told", whole=False
        )

    def goal(self) -> Reported | None:
        if not self.run:
            return Reported("To evaluate predictions of eight subtypes of mitotic figures")
        return Reported(
            "To develop and to evaluate a classifier of eight subtypes of mitotic figures"
        )

    def sources(self) -> Reported | None:
        if self.report.cohort is None:
            return None
        digest = (self.run.get("cohort") or {}).get("sha256")
        text = f"Cohort {self.report.cohort}" + (f", SHA-256 {digest}" if digest else "")
        return Reported(
            f"{text}. Where its slides come from is told with the cohort", False, "provenance"
        )

    def sites(self) -> Reported | None:
        groups = self.metrics["groups"]
        told = [f"{kind}s {', '.join(names)}" for kind, names in groups.items() if names]
        return Reported("; ".join(told), False, "groups") if told else None

    def scanners(self) -> Reported | None:
        names = self.metrics["groups"].get("scanner")
        return Reported(f"Scanners: {', '.join(names)}", False, "groups") if names else None

    def inputs(self) -> Reported | None:
        side, field = self.setting("input", "size_px"), self.setting("input", "field_of_view_um")
        if side is None or field is None:
            return None
        return Reported(
            f"The central {field:g} µm of each patch, sampled to {side} pixels a side, colours "
            "scaled as the backbone expects",
            see="configuration",
        )

    def subsets(self) -> Reported | None:
        return Reported("One patch around each given mitotic figure; figures were not detected")

    def missing_labels(self) -> Reported | None:
        n = self.metrics.get("n_without_label")
        if n is None:
            return None
        return Reported(f"Figures without the label are left out of the measures: {n:,}")

    def reference(self) -> Reported | None:
        label = rater_name(self.metrics["label"])
        return Reported(f"The label of {label}; how it was given is not told", whole=False)

    def annotators(self) -> Reported | None:
        names = [self.metrics["label"], *self.metrics["raters"]]
        told = ", ".join(rater_name(name) for name in names)
        return Reported(f"{told}; their qualification is not told", whole=False)

    def raters(self) -> Reported | None:
        told = [
            f"{rater_name(name)} against {rater_name(rater['against'])}: κ "
            f"{number(rater['overall']['kappa']['value'])}"
            for name, rater in self.metrics["raters"].items()
            if rater["overall"].get("kappa")
        ]
        if not told:
            return None
        return Reported(
            f"Between raters, {'; '.join(told)}. Within one rater: not told", False, "overall"
        )

    def partitions(self) -> Reported | None:
        splits = self.report.splits
        if splits is None:
            return None
        outer, inner = len(splits["outer"]), len(splits["outer"][0]["inner"])
        test = "one test part" if outer == 1 else f"{outer} test parts"
        if not any(split["test"] for split in splits["outer"]):
            test = "no test part"
        return Reported(
            f"Split “{splits.get('kind')}”, seed {splits.get('seed')}: {test}, {inner} folds of "
            "the training part",
            see="splits",
        )

    def disjoint(self) -> Reported | None:
        if self.report.splits is None:
            return None
        if self.leaks:
            return Reported(
                "Figures: those of one patient stand in several parts, on purpose", False
            )
        return Reported("Patients", see="splits")

    def model(self) -> Reported | None:
        found = self.technique()
        models = self.run.get("models") or []
        sizes = sorted({f"{m['parameters']:,}" for m in models if "parameters" in m})
        if found is None or not sizes:
            return found
        return Reported(
            f"{found.text}, each of {' or '.join(sizes)} parameters", see="configuration"
        )

    def software(self) -> Reported | None:
        versions = self.run.get("versions")
        if not versions:
            return Reported(f"Report made with Atypia {__version__}", whole=False)
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        return Reported(told, see="provenance")

    def initial(self) -> Reported | None:
        models = self.run.get("models") or []
        origins = sorted({str(m["initial_weights"]) for m in models if "initial_weights" in m})
        return Reported("; ".join(origins), see="provenance") if origins else None

    def training(self) -> Reported | None:
        optim = self.setting("optim")
        if not isinstance(optim, dict):
            return None
        names = ("optimizer", "epochs", "batch_size", "learning_rate", "schedule", "weight_decay")
        told = [f"{name.replace('_', ' ')} {optim[name]}" for name in names if name in optim]
        return Reported(", ".join(told) + "; every setting is listed", see="configuration")

    def selection(self) -> Reported | None:
        select = self.setting("optim", "select")
        if select is None:
            return None
        which = (
            "the last epoch" if select == "last" else "the epoch with the lowest validation loss"
        )
        return Reported(f"Of each network {which}; the test part had no say", see="training")

    def ensembling(self) -> Reported | None:
        if self.networks is None:
            return None
        tta = (
            "averaged over the eight rotations and flips" if self.setting("ensemble", "tta") else ""
        )
        if self.networks == 1:
            text = f"One network, {tta}" if tta else "None: one network"
        else:
            text = f"The probabilities of {self.networks} networks are joined"
            text += f", {tta}" if tta else ""
        return Reported(text, see="configuration")

    def measures(self) -> Reported | None:
        return Reported(
            f"{', '.join(self.metrics['overall'])} and measures of each class", see="reading"
        )

    def uncertainty(self) -> Reported | None:
        interval = self.metrics["interval"]
        return Reported(
            f"{level(self.metrics)} intervals from {interval['resamples']:,} resamples of "
            f"{interval['unit']}s, seed {interval['seed']}",
            see="reading",
        )

    def robustness(self) -> Reported | None:
        if not self.metrics["groups"]:
            return None
        return Reported("Measures within each domain and scanner", whole=False, see="groups")

    def internal(self) -> Reported | None:
        if self.report.splits is None:
            return None
        if self.leaks:
            return Reported(
                "None: figures of the same patients were learned from, on purpose", False
            )
        if self.metrics.get("part") == "out of fold":
            text = "Out of fold: each figure by the network that did not learn from its patient"
            if self.setting("target", "teacher") is not None:
                return Reported(
                    f"{text}; the teachers of that network had, which flatters it", False
                )
            return Reported(text)
        return Reported("A test part of other patients of the same cohort", see="table-1")

    def external(self) -> Reported | None:
        if self.report.split_kind != "domains":
            return None
        return Reported(
            "Each domain by networks that never saw it, within one cohort", False, "groups"
        )

    def numbers(self) -> Reported | None:
        text = f"{self.metrics['n']:,} figures of {self.metrics['n_patients']:,} patients"
        return Reported(f"{text} scored; who was excluded before is not told", False, "splits")

    def characteristics(self) -> Reported | None:
        if self.report.splits is None:
            return None
        return Reported("Subtypes in each part; nothing of the patients", whole=False, see="splits")

    def performance(self) -> Reported | None:
        if not self.metrics["overall"]:
            return None
        value = number(self.metrics["overall"]["mean_auc"]["value"])
        return Reported(f"Mean AUC {value}, with all other measures and intervals", see="overall")

    def accuracy(self) -> Reported | None:
        if self.report.binary is None and not self.metrics["per_class"]:
            return None
        return Reported(
            "Sensitivity, specificity, PPV and NPV of each class and of atypical", see="table-1"
        )

    def failures(self) -> Reported | None:
        if self.report.scored is None:
            return None
        return Reported(
            "The surest mistakes, and the figures behind each kind of mistake", see="gallery"
        )

    def details(self) -> Reported | None:
        if not self.config:
            return None
        return Reported(
            "Every setting, the command and the seed; no study protocol", False, "configuration"
        )

    def sharing(self) -> Reported | None:
        return Reported("Atypia is open source (Apache-2.0); data and model: not told", whole=False)

    def balance(self) -> Reported | None:
        power = self.setting("ensemble", "prior_power")
        weights = self.setting("loss", "class_weights")
        if power is None and weights is None:
            return None
        return Reported(
            f"Class weights in the loss: {weights}; subtypes decided by p / frequency to the power "
            f"{power}",
            see="configuration",
        )

    def output(self) -> Reported | None:
        binary = self.report.binary
        threshold = None if binary is None else binary["at_operating_point"]["threshold"]
        at = "" if threshold is None else f", called atypical from {threshold:.3g} on"
        return Reported(f"Probabilities of eight subtypes and of atypical{at}", see="binary")

    def clusters(self) -> Reported | None:
        if not self.metrics["groups"]:
            return None
        return Reported(
            "Measures within each domain and scanner, patients resampled within", see="groups"
        )

    def parts_differ(self) -> Reported | None:
        if self.report.splits is None:
            return None
        who = "the same patients" if self.leaks else "other patients"
        return Reported(f"One cohort, {who}; numbers of each part", False, "splits")

    def events(self) -> Reported | None:
        if not self.metrics["per_class"]:
            return None
        return Reported("Figures and patients of each subtype", see="table-1")

    def specification(self) -> Reported | None:
        if not self.run.get("models"):
            return None
        return Reported("The run's folder model/ holds weights and model.json", see="provenance")

    def calibration(self) -> Reported | None:
        kind = self.setting("ensemble", "calibration")
        return (
            None
            if kind is None
            else Reported(f"Calibration: {kind}", whole=False, see="reliability")
        )

    def tuning(self) -> Reported | None:
        found = self.training()
        return found and Reported(
            f"{found.text}. How these settings were found is not told", False, "configuration"
        )


_F = _Facts
CLAIM: Final = (
    ChecklistItem("1", "Title or abstract: a study of AI, and which technique", _F.title),
    ChecklistItem("2", "Abstract: structured summary", _F.summary),
    ChecklistItem("3", "Background; intended use and role of the approach", _F.use),
    ChecklistItem("4", "Aims, objectives, hypotheses"),
    ChecklistItem("5", "Prospective or retrospective"),
    ChecklistItem("6", "Goal of the study", _F.goal),
    ChecklistItem("7", "Sources of the data", _F.sources),
    ChecklistItem("8", "Inclusion and exclusion criteria"),
    ChecklistItem("9", "Pre-processing", _F.inputs),
    ChecklistItem("10", "Selection of data subsets", _F.subsets),
    ChecklistItem("11", "De-identification"),
    ChecklistItem("12", "How missing data were handled", _F.missing_labels),
    ChecklistItem("13", "Image acquisition", _F.scanners),
    ChecklistItem("14", "Definition of the reference standard", _F.reference),
    ChecklistItem("15", "Why this reference standard"),
    ChecklistItem("16", "Source of the annotations; who the annotators are", _F.annotators),
    ChecklistItem("17", "Annotation of the test set", _F.reference),
    ChecklistItem("18", "Variability between and within raters", _F.raters),
    ChecklistItem("19", "How data were assigned to partitions", _F.partitions),
    ChecklistItem("20", "Level at which partitions are disjoint", _F.disjoint),
    ChecklistItem("21", "Intended sample size"),
    ChecklistItem("22", "Description of the model", _F.model),
    ChecklistItem("23", "Software and versions", _F.software),
    ChecklistItem("24", "Initial parameters", _F.initial),
    ChecklistItem("25", "Training", _F.training),
    ChecklistItem("26", "How the final model was selected", _F.selection),
    ChecklistItem("27", "Ensembling", _F.ensembling),
    ChecklistItem("28", "Measures of performance", _F.measures),
    ChecklistItem("29", "Measures of significance and uncertainty", _F.uncertainty),
    ChecklistItem("30", "Robustness or sensitivity analysis", _F.robustness),
    ChecklistItem("31", "Explainability"),
    ChecklistItem("32", "Evaluation on internal data", _F.internal),
    ChecklistItem("33", "Testing on external data", _F.external),
    ChecklistItem("34", "Registration of a clinical trial"),
    ChecklistItem("35", "Numbers included and excluded", _F.numbers),
    ChecklistItem("36", "Characteristics of cases in each partition", _F.characteristics),
    ChecklistItem("37", "Performance and its uncertainty", _F.performance),
    ChecklistItem("38", "Diagnostic accuracy and its precision", _F.accuracy),
    ChecklistItem("39", "Failure analysis", _F.failures),
    ChecklistItem("40", "Limitations"),
    ChecklistItem("41", "Implications for practice", _F.use),
    ChecklistItem("42", "Protocol or further technical details", _F.details),
    ChecklistItem("43", "Availability of software, model and data", _F.sharing),
    ChecklistItem("44", "Funding and the role of funders"),
)
TRIPOD_AI: Final = (
    ChecklistItem("1", "Title", _F.title),
    ChecklistItem("2", "Abstract", _F.summary),
    ChecklistItem("3a", "Healthcare context, existing models", _F.use),
    ChecklistItem("3b", "Target population, intended purpose and users", _F.use),
    ChecklistItem("3c", "Known health inequalities"),
    ChecklistItem("4", "Objectives: development, evaluation, or both", _F.goal),
    ChecklistItem("5a", "Sources of data", _F.sources),
    ChecklistItem("5b", "Dates of the data"),
    ChecklistItem("6a", "Setting, number and place of centres", _F.sites),
    ChecklistItem("6b", "Eligibility"),
    ChecklistItem("6c", "Treatments"),
    ChecklistItem("7", "Data preparation", _F.inputs),
    ChecklistItem("8a", "Definition of the outcome", _F.reference),
    ChecklistItem("8b", "Who assessed the outcome", _F.annotators),
    ChecklistItem("8c", "Blinding of the outcome assessment"),
    ChecklistItem("9a", "Choice of predictors", _F.subsets),
    ChecklistItem("9b", "Definition of predictors", _F.inputs),
    ChecklistItem("9c", "Who assessed predictors", _F.subsets),
    ChecklistItem("10", "Sample size"),
    ChecklistItem("11", "Missing data", _F.missing_labels),
    ChecklistItem("12a", "How data were used: development and evaluation", _F.partitions),
    ChecklistItem("12b", "How predictors were handled", _F.inputs),
    ChecklistItem(
        "12c", "Type of model, steps of its building, tuning, internal validation", _F.tuning
    ),
    ChecklistItem("12d", "Heterogeneity across clusters", _F.clusters),
    ChecklistItem("12e", "Measures of performance", _F.measures),
    ChecklistItem("12f", "Model updating, such as recalibration", _F.calibration),
    ChecklistItem("12g", "How predictions were computed", _F.ensembling),
    ChecklistItem("13", "Class imbalance", _F.balance),
    ChecklistItem("14", "Fairness"),
    ChecklistItem("15", "Output of the model, thresholds", _F.output),
    ChecklistItem("16", "Differences between development and evaluation data", _F.parts_differ),
    ChecklistItem("17", "Ethical approval"),
    ChecklistItem("18a", "Funding"),
    ChecklistItem("18b", "Conflicts of interest"),
    ChecklistItem("18c", "Protocol", _F.details),
    ChecklistItem("18d", "Registration"),
    ChecklistItem("18e", "Sharing of data"),
    ChecklistItem("18f", "Sharing of code", _F.sharing),
    ChecklistItem("19", "Involvement of patients and the public"),
    ChecklistItem("20a", "Flow of participants", _F.numbers),
    ChecklistItem("20b", "Characteristics of participants", _F.characteristics),
    ChecklistItem("20c", "Development and evaluation data compared", _F.characteristics),
    ChecklistItem("21", "Participants and outcomes in each analysis", _F.events),
    ChecklistItem("22", "Specification of the model", _F.specification),
    ChecklistItem("23a", "Performance with intervals, also of subgroups", _F.performance),
    ChecklistItem("23b", "Heterogeneity of performance across clusters", _F.clusters),
    ChecklistItem("24", "Results of model updating", _F.calibration),
    ChecklistItem("25", "Interpretation"),
    ChecklistItem("26", "Limitations"),
    ChecklistItem("27a", "Poor or unavailable input data"),
    ChecklistItem("27b", "What users must do or know", _F.use),
    ChecklistItem("27c", "Next steps"),
)


def checklists(report: ReportInput) -> Html:
    """Show both checklists, folded up, each with how many items are told."""
    facts = _Facts(report)
    return join(
        tag(
            "p",
            "What two reporting guidelines ask for, and what this run knows of it. An author fills "
            "the rest. Items are shortened; the guidelines’ own words count.",
        ),
        _checklist(
            "CLAIM 2024", "Tejani et al., Radiology: Artificial Intelligence 2024", CLAIM, facts
        ),
        _checklist("TRIPOD+AI", "Collins et al., BMJ 2024", TRIPOD_AI, facts),
    )


def _checklist(name: str, source: str, items: Sequence[ChecklistItem], facts: _Facts) -> Html:
    told = [None if item.tell is None else item.tell(facts) for item in items]
    rows = [
        [item.number, item.asks, join(_state(found), _text(found))]
        for item, found in zip(items, told, strict=True)
    ]
    whole = sum(found is not None and found.whole for found in told)
    part = sum(found is not None and not found.whole for found in told)
    heading = (
        f"{name}: {whole} of {len(items)} items reported, {part} in part, "
        f"{len(items) - whole - part} not"
    )
    return tag(
        "details",
        tag("summary", heading),
        table(f"{name} ({source})", ["Item", "Asks for", "This run"], rows, class_="checklist"),
    )


def _state(found: Reported | None) -> Html:
    if found is None:
        return tag("span", NOT_REPORTED, class_="state")
    word, mark = ("Reported", "told") if found.whole else ("In part", "part")
    return tag("span", word, class_=f"state {mark}")


def _text(found: Reported | None) -> Html | None:
    if found is None:
        return None
    link = (
        None
        if found.see is None
        else tag("a", f"see {found.see.replace('-', ' ')}", href=f"#{found.see}")
    )
    return join(found.text, ".") if link is None else join(found.text, "; ", link, ".")
