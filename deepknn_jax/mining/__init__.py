"""What anchors are trained against, found beside the batch."""
