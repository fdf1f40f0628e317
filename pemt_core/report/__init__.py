"""Tables, figures and a page from results; nothing here reads a model or a tracking server."""
