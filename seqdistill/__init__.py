"""Sequence-level distillation of language models: generate, filter, train, eval.

Every stage is a plain function from files to files; the command line (`seqdistill --help`) calls the same functions.
"""

__version__ = "0.1.0"
