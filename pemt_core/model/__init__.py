"""The method: modules put around a frozen T5, attached and detached exactly. Start reading at assemble.py."""
