"""What comes over the phone network, read and acted on in one transaction with the mark that it was (R1, R17)."""
