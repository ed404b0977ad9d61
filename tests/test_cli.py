"""The command line as a user meets it: help, exit codes, precedence, errors that name the place and the next action."""
