"""One recipe per verb. A recipe calls; the stages, the store and the network do."""
