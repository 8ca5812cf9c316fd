"""The swarm's persistent storage under its own names: `PersistentDataStorage` and `DataIntegrityManager`.

`words` are the names that its users know, `package` the form in which a value lies in a file or in a backup; `files`
and `logged` are the two shelves on which values stand, `backups` the copies of them; `storage` is the face,
`recovering` and `watch` are what stands behind the integrity manager.
"""
