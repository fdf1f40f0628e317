"""A new task from the user's files: propose its entry, try it, and write it into params.yaml.

propose_entry(files, target, ...)   the entry, and a note on each choice that the user did not make
add_own_task(params, name, entry)   checks the task by preparing it, then writes
"""

from pemt_core.new_task.propose import Proposal, propose_entry
from pemt_core.new_task.write import add_own_task, parse_mapping

__all__ = ["Proposal", "add_own_task", "parse_mapping", "propose_entry"]
