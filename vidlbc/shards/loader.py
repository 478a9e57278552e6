"""Batches from shards through torch's DataLoader, in the shards' own order, resumable in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import TYPE_CHECKING, Any, Protocol

from vidlbc.errors import InputError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


Sample = dict[str, Any]


class OrderedSamples(Protocol):
    """What a loader draws from; see `vidlbc.LatentShards`."""

    position: int
    rank: int
    world: int

    @property
    def on_gpu(self) -> bool: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def order(self) -> Sized: ...

    def places(self) -> Iterator[int]: ...

    def next_epoch(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class ShardLoader:
    """One rank's batches of `batch_size` samples; the order is that of `LatentShards`, whatever `num_workers` is.

    Workers read ahead, so the place in the order is counted by batches handed out, never by samples read:
    `state_dict()` between two batches resumes with the next one, at any number of workers, and at another world size
    when world x batch_size stays the same. Iterating through moves on to the next epoch. Workers may be forked (also
    after the codec was used here) or spawned, and may stay for the next epoch (`persistent_workers=True`).
    """

    def __init__(
        self,
        shards: OrderedSamples,
        batch_size: int,
        num_workers: int = 0,
        *,
        collate_fn: Callable[[list[Sample]], Any] = list,
        drop_last: bool = False,
        **options: Any,
    ) -> None:
        """`options` go to torch's DataLoader (prefetch_factor, pin_memory, multiprocessing_context, ...)."""
        if batch_size < 1 or num_workers < 0:
            raise InputError(f"batch_size={batch_size}, num_workers={num_workers}: expected at least 1 and 0")
        self.shards, self.batch_size, self.num_workers = shards, batch_size, num_workers
        self.collate_fn, self.drop_last, self.options = collate_fn, drop_last, options
        self._loader: DataLoader[Any] | None = None

    def __len__(self) -> int:
        """Batches left in this epoch on this rank."""
        left = len(range(self.shards.position + self.shards.rank, len(self.shards.order()), self.shards.world))
        return left // self.batch_size if self.drop_last else -(-left // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if self._loader is None:
            self._loader = self._torch_loader()
        for batch in self._loader:
            self.shards.position += self.batch_size * self.shards.world
            yield batch
        self.shards.next_epoch()

    def _torch_loader(self) -> DataLoader[Any]:
        """Made once: workers that stay belong to it. Raises InputError for a GPU's codec in forked processes."""
        from torch.multiprocessing import get_start_method
        from torch.utils.data import DataLoader

        context = self.options.get("multiprocessing_context") or get_start_method()
        method = context if isinstance(context, str) else context.get_start_method()
        if self.num_workers and method == "fork" and self.shards.on_gpu:
            raise InputError(
                f"num_workers={self.num_workers}: a codec on a GPU does not work in forked processes; expected"
                " multiprocessing_context='spawn', a codec with device='cpu', or num_workers=0"
            )
        return DataLoader(
            self.shards,  # type: ignore[arg-type]  # map-style: __len__ and __getitem__ are all it uses
            batch_sampler=_Rest(self),
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            **self.options,
        )

    def batches(self) -> list[list[int]]:
        """Clips of the batches left in this epoch on this rank."""
        indices = list(self.shards.places())
        batches = [indices[low : low + self.batch_size] for low in range(0, len(indices), self.batch_size)]
        return [batch for batch in batches if len(batch) == self.batch_size or not self.drop_last]

    def state_dict(self) -> dict[str, Any]:
        """As `LatentShards.state_dict`."""
        return self.shards.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `LatentShards.load_state_dict`."""
        self.shards.load_state_dict(state)


class _Rest:
    """What a torch DataLoader draws from: at every start, the batches that are left then."""

    def __init__(self, loader: ShardLoader) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._loader.batches())
