"""From an adapter to a small model: merge, quantize, and the gates that hold both."""
