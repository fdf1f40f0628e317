"""Checks of this machine and project: one function per check; each finding of a problem says how to fix it.

examine(...)   yields all findings in order
"""

from pemt_core.doctor.examine import CHECKS, examine
from pemt_core.doctor.finding import Finding, Status, Surroundings

__all__ = ["CHECKS", "Finding", "Status", "Surroundings", "examine"]
