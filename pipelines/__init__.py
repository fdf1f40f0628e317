"""The pipeline as containers on Kubeflow Pipelines: `steps` defines the steps, `pipeline` connects them.

`python -m pipelines.image` builds the image of the steps, `.compile` writes the pipeline as YAML, `.submit` runs it on
a cluster, `.local` on this machine's Docker engine.
"""
