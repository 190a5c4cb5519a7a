"""Inference gaps of small VAEs beside what was published: which claims hold at an hour's size?

    python -m benchmarks.inference_gaps --quick    # does it run?  (its figures mean nothing)
    python -m benchmarks.inference_gaps            # everything; goes on where it was interrupted

Trains four pairs on MNIST and on Fashion-MNIST: a plain one, one with a larger encoder, one with a
larger decoder, and one whose posterior is a flow.  Takes log p(x) - ELBO of training and of unseen
images apart, as "Inference Suboptimality in Variational Autoencoders" (Cremer, Li, Duvenaud, 2018)
did, and says of each of its claims by a fixed rule whether it held.
"""
