"""The frozen T5 that everything is attached to: fetched from a hub or pretrained here, stored with a fingerprint."""
