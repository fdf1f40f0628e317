"""Names with a meaning in several packages."""

JOINT = "joint"  # the source that consists of all other sources together
