"""Two ends that exchange frames: `contract` says what they promise, one module for each way they are carried."""
