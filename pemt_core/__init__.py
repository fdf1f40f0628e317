"""Parameter-efficient multi-task transfer (PEMT; Lin et al., Findings of ACL 2024, arXiv 2402.15082)."""

__version__ = "0.1.0"
