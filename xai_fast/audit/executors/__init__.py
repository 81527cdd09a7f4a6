"""Who works on the shards of a run: this process, or many; one contract under all."""
