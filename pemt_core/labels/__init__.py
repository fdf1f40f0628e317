"""Label words that a model can write, and tell apart.

check_labels(task)               without a tokenizer: no two look the same, or are one number
check_written(task, tokenizer)   with the backbone's: each is read back as it was written

LabelError names the labels, and proposes words to write instead.
"""

from pemt_core.labels.distinct import check_labels
from pemt_core.labels.error import LabelError
from pemt_core.labels.written import check_label_words, check_written

__all__ = ["LabelError", "check_label_words", "check_labels", "check_written"]
