"""The HTTP API: what ``atypia predict`` and ``atypia slide`` do, for programs on this machine.

A request passes :mod:`.guard` (who may ask, and whether there is room), its images go to files
of the server's own (:mod:`.uploads`), a thread runs the pipeline on them (:mod:`.service`), and one
thread that all requests share holds the model (:mod:`.shared_model`). :mod:`.api_routes` puts it
together; :mod:`.listener` listens.
"""
