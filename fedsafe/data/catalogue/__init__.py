"""The public data sets that come with FedSafe or are fetched by it, one file each."""
