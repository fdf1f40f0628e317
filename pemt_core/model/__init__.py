"""The method's modules, which attach to a frozen backbone and detach exactly. Start reading at assemble.py."""
