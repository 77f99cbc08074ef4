"""What speaks against a data set, found before a store is written."""
