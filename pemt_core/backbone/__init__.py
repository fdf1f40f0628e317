"""The frozen model that everything is attached to: fetched from a hub or pretrained here, stored with a fingerprint."""
