"""Whether this machine and project can run the pipeline: one function per check, each saying how to mend what it finds.

examine(...)   all findings, in order, as they come
"""

from pemt_core.doctor.examine import CHECKS, examine
from pemt_core.doctor.finding import Finding, Status, Surroundings

__all__ = ["CHECKS", "Finding", "Status", "Surroundings", "examine"]
