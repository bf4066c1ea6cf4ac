"""From an OCI config to a list of operations; their encoding and their explanation."""
