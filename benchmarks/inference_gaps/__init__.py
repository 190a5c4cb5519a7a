"""Inference gaps of small VAEs beside what was published: which claims hold at an hour's size?

    python -m benchmarks.inference_gaps --quick    # does it run?  (its figures mean nothing)
    python -m benchmarks.inference_gaps            # everything; goes on where it was interrupted

Trains four pairs on MNIST and on Fashion-MNIST: a plain one, one with a larger encoder, one with a
larger decoder, and one whose posterior is a flow.  Takes log p(x) - ELBO of training and of unseen
images apart, as "Inference Suboptimality in Variational Autoencoders" (Cremer, Li, Duvenaud, 2018)
did, and says of each of its claims by a fixed rule whether it held.

What differs from there: tens of passes over the data instead of thousands, with Adam from 1e-3
falling to a hundredth of it, batches of 128, images binarised anew in each; a KL weight that grows
over the first tenth of the steps; 500 units instead of 200 where a network is the larger one; a
flow of two couplings on a full covariance, all of whose weights the encoder gives.  What takes
long training to show, an encoder that knows the training images too well, may not show here.
"""
