"""What happened: vocabulary, entries, and the logs that keep them."""
