"""Data: shards on disk, their division over vertices, batches, augmentation. Nothing here communicates."""
