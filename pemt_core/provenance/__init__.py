"""Where a result comes from: commit, time, versions, and what it cost."""
