"""Write what the rules are, as they are in the code: docs/guide/rules.md.

python docs/make_rules.py docs/guide/rules.md
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

from atypia.classifiers.rules.criteria import RULES, STRENGTH, prior
from atypia.classifiers.rules.shape_measures import Measures
from atypia.core.files import write_text
from atypia.core.labels import DISPLAY_NAMES, SUBTYPES

PAGE = """# Rules

What `--preset rules` knows of each subtype, and what hybrids and stacks learn from. Nothing is
trained. A figure's chromatin is separated by stain (Ruifrok and Johnston 2001), segmented and
measured; each criterion below turns one measure into a degree of truth (Zadeh 1965), 0.1 at the
value in the column *hardly* and 0.9 at that in *mostly*; a rule is as true as its criteria in the
geometric mean, a subtype as the truest of its rules. Its probability is frequency ×
truth^{strength}, then calibrated out of fold.

The criteria follow, in our words, the definitions that pathologists share: Donovan et al.,
*Mitotic figures – normal, atypical, and mimics: a guide to identification*, Veterinary Pathology
58(2), 2021. What a criterion's constants are, neither these nor geometry decide alone: they were
set by hand, and criteria kept or dropped, with a look at the 162 training patients of `table1`.
There they reach a mean AUC of 0.886, on the 40 test patients 0.842. Frequencies are theirs, too.

Each answer has a reason: `atypia predict` writes it to the column `reason`, with the values that
it was read from. Where a rarer subtype's rule fits better than that of the answer, the reason
says so.

This page is made of the code by `docs/make_rules.py`.
"""


def main() -> None:
    """Write the page."""
    (out,) = sys.argv[1:]
    write_text(Path(out), page())


def page() -> str:
    """Write all rules and measures as Markdown."""
    lines = [PAGE.replace("{strength}", str(STRENGTH))]
    for subtype, share in zip(SUBTYPES, prior(), strict=True):
        lines += [f"## {DISPLAY_NAMES[subtype]}", "", f"Frequency {100 * share:.1f} %.", ""]
        for rule in (r for r in RULES if r.subtype == subtype):
            lines += [
                f"**{rule.name[0].upper()}{rule.name[1:]}**",
                "",
                "| criterion | else | measure | hardly | mostly |",
                "|---|---|---|---:|---:|",
            ]
            lines += [
                f"| {c.words} | {c.otherwise} | `{c.measure}` | {c.hardly:g} | {c.mostly:g} |"
                for c in rule.criteria
            ]
            lines.append("")
    lines += ["## Measures", "", *(inspect.getdoc(Measures) or "").split("\n"), ""]
    lines += ["| measure | what it is |", "|---|---|"]
    lines += [f"| `{name}` | {told} |" for name, told in definitions().items()]
    return "\n".join(lines) + "\n"


def definitions() -> dict[str, str]:
    """Say what each measure is: the text below it in the code."""
    body = ast.parse(inspect.getsource(Measures)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr)
            found[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return found


if __name__ == "__main__":
    main()
