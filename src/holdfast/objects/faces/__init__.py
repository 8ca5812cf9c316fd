"""What the seed's programs call: backends, configuration, versions and batches around `StorageManager`."""
