"""What is kept: buckets, manifests, records, and the names that mean them."""
