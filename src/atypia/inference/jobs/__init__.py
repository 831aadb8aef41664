"""Jobs: many slides or patches, cut into items that any engine does, and goes on with later.

What a job has done is files, one per item, each there whole or not at all. Whoever dies, a worker,
the machine it runs on, or the process that hands out the work, loses the items it was doing and no
other; the same command does what is missing.
"""
