"""The train stage: examples, batches, DoRA, the loss, checkpoints, and the memory they take."""
