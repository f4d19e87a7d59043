"""Job `campaign`: how vulnerable a network is, layer by layer and bit by bit."""
