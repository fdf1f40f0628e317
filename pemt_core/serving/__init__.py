"""One HTTP server for all registered targets of an experiment, on one backbone in memory.

requests    the body of a request to rows
bodies      the bodies of requests, bounded together
batching    a bounded queue, and the thread that answers the rows of concurrent requests together
versions    a version of the registry to a trained target on the shared backbone
targets     which versions answer: those of an alias, or of a call
app         the endpoints, by schemas, metrics and openapi
server      all of them as a process
ending      how long that takes to end
manifests   that process on Kubernetes
"""
