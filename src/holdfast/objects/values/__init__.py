"""What values are as bytes: typed JSON, text and bytes; and old pickles, read without running them."""
