"""The steps of the pipeline, one module each, named as the component, the DVC stage and the group in params.yaml."""
