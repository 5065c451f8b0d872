"""Parts: what changes training rather than its start, such as augmentation. One family a file."""
