"""`python -m seqdistill`: the same command line as `seqdistill`."""

from seqdistill.cli import run_from_shell

run_from_shell()
