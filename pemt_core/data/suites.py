"""The suite of tasks that reports and messages treat by itself."""

OWN = "Own"  # users' tasks
