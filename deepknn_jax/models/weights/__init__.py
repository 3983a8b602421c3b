"""Published weights, read without running code from them."""
