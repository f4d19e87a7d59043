"""Job `importance`: scores of every neuron."""
