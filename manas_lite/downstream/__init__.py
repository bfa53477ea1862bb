"""What deraining is worth to others: a fixed detector, a fixed segmenter, and no-reference scores on real rain.

The protocol of the field: one pretrained model, never retrained, looks at the rainy, the derained and the clean
picture. Its own training and the deraining network's know nothing of each other.
"""
