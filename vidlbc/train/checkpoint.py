"""The optimiser's state as tensors by name, for a checkpoint without pickle (vidlbc.run.tensor_files)."""

import torch
from torch import Tensor


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state as a flat dict of tensors, keyed by parameter index."""
    return {
        f"optimiser.{index}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                # Files hold rows in order; fused AdamW walks through weights and moments as they lie in memory, and
                # weights may have their channels last.
                value = torch.empty_like(parameter.detach()).copy_(value)
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
