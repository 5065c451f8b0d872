"""What a run leaves behind: the store (write) and tidy tables (read). Importing this package never imports torch."""
