"""The method's modules, which attach to a frozen T5 and detach exactly. Start reading at assemble.py."""
