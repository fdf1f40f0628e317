"""The steps of the pipeline, one module each, named like the component, the DVC stage and the group in params.yaml."""
