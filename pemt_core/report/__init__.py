"""Tables, figures and a page from results. Nothing here reads a model or a tracking server."""
