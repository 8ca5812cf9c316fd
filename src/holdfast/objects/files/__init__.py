"""Objects as readable files: `FileStore`, and the rooms that it stands on."""
