"""What a client is told."""

from __future__ import annotations

import json

from atypia.core.errors import Problem
from atypia.server.refusals import RefusalError, busy, sentences


def test_files_are_named_as_the_client_does_or_not_at_all() -> None:
    problems = [
        Problem("damaged.", "/tmp/x/0.tif"),
        Problem("cannot open /tmp/x/0.tif.", "/srv/secret"),
        Problem("Is the resolution (--mpp) right?"),
    ]
    assert sentences(problems, {"/tmp/x/0.tif": "<b>.tif"}) == [
        "<b>.tif: damaged.",
        "cannot open <b>.tif.",
        "Is the resolution (mpp) right?",
    ]


def test_a_refusal_is_json() -> None:
    assert json.loads(RefusalError(422, "ü \ud800").response().body) == {"problems": ["ü \ud800"]}
    refusal = busy(7, "Full.")
    assert (refusal.status, refusal.headers) == (503, {"Retry-After": "7"})
    assert refusal.problems == ["Full. Try again in 7 s."]
