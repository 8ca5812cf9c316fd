"""Object stores in a cloud: S3, Azure Blob and Google Cloud Storage, through obstore; and what their servers really do.

`door` alone knows obstore, `store` is the object store, `s3`, `azure` and `gcs` open it, `probe` tries a server out,
`arbitrated` gives conditional writes to a server that has none.
"""
