"""A data set in the two parts that everything else asks for."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from bayesvae.data.mapped import Mapped


class Splits(NamedTuple):
    """A data set in its training and test part.

    Attributes:
        train: Data of shape ``(N, *event)``, in memory or, as `Mapped`, on disk; the named sets
            have float32 grey levels in [0, 1].
        test: Likewise, ``(M, *event)``; None if nothing was set aside.
        train_labels: Classes, int64 of shape ``(N,)``; None if there are none.
        test_labels: Likewise, ``(M,)``.
        names: Names of the columns, of data that have such.
        label_names: Names of the classes; that of class ``k`` is at ``k``.

    Example:
        >>> from bayesvae import data
        >>> data.digits().train.shape
        torch.Size([1437, 1, 8, 8])
    """

    train: Tensor | Mapped
    test: Tensor | Mapped | None = None
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()

    def hold_out(self, fraction: float) -> tuple[Tensor | Mapped, Tensor | Mapped]:
        """Split the last rows of `train` off for validation.

        Nothing needs shuffling: training data are shuffled as they are read or made (but not by
        ``read(..., test=0)``), or their files have the classes mixed (customary for MNIST: the
        last sixth, 10,000 images).

        Args:
            fraction: Share of the N training data to hold out, rounded to V whole data, one at
                least and N - 1 at most.

        Returns:
            Views of shape ``(N - V, *event)`` for training and ``(V, *event)`` for validation.

        Raises:
            ValueError: If `fraction` is no share, or there are fewer than two data.

        Example:
            >>> from bayesvae import data
            >>> [len(part) for part in data.digits().hold_out(0.1)]
            [1293, 144]
        """
        total = len(self.train)
        if not 0 < fraction < 1:
            raise ValueError(
                f"hold_out needs a fraction between 0 and 1; got {fraction} of {total} data. Try "
                f"0.1."
            )
        if total < 2:
            raise ValueError(
                f"hold_out needs at least 2 data to split; got {total}, of which none can be held "
                f"out. Read more data, or train without validation."
            )
        held = min(max(round(fraction * total), 1), total - 1)
        return self.train[:-held], self.train[-held:]
