"""How long a server takes to end, by which its process and its pod on Kubernetes are told."""

import math

from pemt_core.interruption import LAST_WORDS_SECONDS

LEAVING_SECONDS = 5  # until no Service sends requests to a pod that ends
ANSWERING_SECONDS = 20  # from a signal, for the requests that run
ENDING_SECONDS = ANSWERING_SECONDS + 3  # from a signal, for all that the main thread still does
POD_SECONDS = LEAVING_SECONDS + ENDING_SECONDS + math.ceil(LAST_WORDS_SECONDS)  # then Kubernetes kills it
