"""Inputs as other people's tools write them: a right answer, a clear refusal, or a fault.

    python benchmarks/field.py [-k WORDS] [--shared FAULTS] [--slide ../shared/slides/small_HE.svs]

Every input is made in a temporary folder from drawn figures (with --slide, from a part of a slide)
and goes through the command line in this process, or the Python interface. --shared adds the inputs
of a folder of faults, with the right values of its READMEs. Prints a line per case and the totals:

* right: the values expected; refused: a clear refusal, where one is right;
* WRONG: other values, a refusal of what can be read, or an answer to what can't;
* SILENT: something was left out, or an answer is wrong, without a word;
* TRACEBACK: the program broke, or took longer than a minute.

Exit code 1 if any case is neither right nor rightly refused.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import field_cohorts  # noqa: F401 (registers its cases)
import field_pictures  # noqa: F401
import field_places  # noqa: F401
import field_shared
from field_bench import CASES, Bench, Fault


def outcome_of(name: str, bench: Bench, keep: Path | None) -> tuple[str, str]:
    """Run one case in a folder of its own: outcome, and why it is not right."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            return CASES[name][1](Bench(bench, Path(scratch).resolve())), ""
        except Fault as fault:
            return fault.outcome, str(fault)
        except Exception as error:
            return "TRACEBACK", f"{type(error).__name__}: {error}"
        finally:
            os.chdir(bench.folder)
            if keep is not None:
                folder = keep / "".join(c if c.isalnum() else "_" for c in name)
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(scratch, folder, symlinks=True, ignore=_no_files)


def _no_files(folder: str, names: list[str]) -> set[str]:
    return {n for n in names if not (Path(folder, n).is_file() or Path(folder, n).is_dir())}


def main() -> None:
    """Run the cases and print what came of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-k", default="", help="only cases whose kind or name has this text")
    parser.add_argument("--shared", type=Path, help="the folder of faults")
    parser.add_argument("--slide", type=Path, help="pictures from this slide, not drawn ones")
    parser.add_argument("--keep", type=Path, help="copy the folder of every case to here")
    options = parser.parse_args()
    if options.shared is not None:
        field_shared.add_cases(options.shared.resolve())
    warnings.simplefilter("ignore")
    keep = options.keep and options.keep.resolve()
    totals: Counter[str] = Counter()
    clock = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(None, Path(scratch).resolve(), options.slide and options.slide.resolve())
        for name, (kind, _) in CASES.items():
            if options.k.lower() not in f"{kind}: {name}".lower():
                continue
            outcome, why = outcome_of(name, bench, keep)
            totals[outcome] += 1
            print(f"{outcome:10}{kind:30}{name}" + (f"\n{'':10}{why}" if why else ""), flush=True)
        os.chdir("/")
    summary = ", ".join(f"{number} {outcome}" for outcome, number in totals.most_common())
    print(f"{totals.total()} cases in {time.perf_counter() - clock:.0f} s: {summary}")
    sys.exit(bool(totals.total() - totals["right"] - totals["refused"]))


if __name__ == "__main__":
    main()
