"""One program per step: `python -m components.<step> --help`. Each parses its flags, calls pemt_core and writes."""
