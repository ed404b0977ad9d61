"""The four stages: plain functions from files in the run directory to files in it. They never import each other."""
