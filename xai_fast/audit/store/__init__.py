"""The records of a run: a Parquet file per shard, which is whole or not there; what its columns hold."""
