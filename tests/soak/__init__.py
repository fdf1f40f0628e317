"""Soak tests: random kills, generated inputs and damaged files. `make soak` runs the long form, .ci/run a short one."""
