"""The origin of a result: commit, time, versions and cost."""
