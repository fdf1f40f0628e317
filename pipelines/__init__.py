"""The pipeline as containers on Kubeflow Pipelines: `steps` one by one, `pipeline` as a whole, and commands.

`python -m pipelines.image` builds what the steps run in, `.compile` writes the pipeline as YAML, `.submit` runs it on a
cluster, `.local` on this machine's Docker engine.
"""
