"""pyrun-oci's verbs: one recipe a verb, as runc names them. Source: runtime-spec runtime.md, runc(8)."""
