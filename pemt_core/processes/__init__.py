"""How work is divided among the cores of this machine: single-threaded processes, forked once everything is loaded."""
