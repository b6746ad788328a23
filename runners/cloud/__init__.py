"""What asks or changes Google Cloud from here: doctor, keys, prices, images, jobs."""
