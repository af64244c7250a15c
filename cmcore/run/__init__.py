"""The program around the mathematics: data, training, checkpoints, sampling, evaluation and the command line."""
