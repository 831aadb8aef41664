"""A request that gets no answer: why, in sentences, and with which HTTP status."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atypia.core.errors import Problem


class RefusalError(Exception):
    """Ends a request.

    Args:
        status: HTTP status.
        problems: One sentence for each thing that is wrong.
        headers: Further headers of the response.
    """

    def __init__(
        self, status: int, problems: str | Iterable[str], headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.headers = dict(headers or {})
        super().__init__("\n".join(self.problems))

    @property
    def body(self) -> bytes:
        """JSON of :class:`atypia.server.schemas.Refused`."""
        return json.dumps({"problems": self.problems}).encode()


def busy(seconds: int, what: str) -> RefusalError:
    """Make the refusal of a request that may come again in so many seconds."""
    again = f"{what} Try again in {seconds} s."
    return RefusalError(503, again, {"Retry-After": str(seconds)})


def sentences(problems: Iterable[Problem], names: Mapping[str, str]) -> list[str]:
    """Tell problems to a client.

    Args:
        problems: Whose files are those of this machine.
        names: By file, what the client calls it. No other file is named.
    """
    told = []
    for problem in problems:
        text = str(replace(problem, file=names.get(problem.file or "")))
        for file, name in names.items():  # in what a library says, too
            text = text.replace(file, name)
        told.append(text.replace("--mpp", "mpp"))  # an option there is a field here
    return told
