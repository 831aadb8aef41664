"""The web app of ``atypia serve RUN|COHORT|SLIDE``: see the answers, question them, label anew.

:mod:`.source` reads what is to be shown, :mod:`.site` holds it, and :mod:`.app_routes` answers the
browser beside the HTTP API of :mod:`atypia.server`. What the browser loads lies in ``static``:
plain modules and style sheets, no build, no other host.
"""
