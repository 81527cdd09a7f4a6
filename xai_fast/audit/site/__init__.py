"""The report of a run: a folder that opens from disk in any browser and asks nothing of the network."""
