"""What runs inside Cloud Run: the tasks of a training job, and a server that says when it is ready and ends with its streams finished."""
