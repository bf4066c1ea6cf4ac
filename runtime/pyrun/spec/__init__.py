"""What a container is to be, in OCI's words (snake_case in Python, the spec's own keys in config.json)."""
