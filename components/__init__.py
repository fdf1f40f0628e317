"""One program per step: `python -m components.<step> --help`. They parse, call pemt_core once, and write."""
