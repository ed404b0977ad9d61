"""Several students of one run: a family of sizes (sweep), and one student on growing data (curve).

Drives the stages of train and eval, each student in a run directory of its own within the run. Above the stages, below the
library's functions.
"""
