"""A small transformer on real prose, complete: every field of a run, with its unit. Other configurations start here.

Command: python -m experiments.run --config=configs/base.py --workdir=runs/base
Expected: one run, about 20 s on 2 cores; validation loss on prose near 2.25 nats a byte.
"""

from typing import Any

from ml_collections import ConfigDict, config_dict


def optional(value: Any) -> config_dict.FieldReference:
    """A field that an override may set to None as well, as in --config.optimizer.clip_norm=None."""
    return config_dict.FieldReference(value, field_type=object)


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.model = {
        "width": 64,
        "depth": 2,
        "heads": 4,
        "feedforward_ratio": 4.0,  # hidden width over width
        "activation": "gelu",  # gelu | relu2 | swiglu
        "positions": "learned",  # learned | rotary
        "norm": "rmsnorm",  # layernorm | rmsnorm | crmsnorm | powernorm | unified
        "tied_head": True,
        "qk_norm": False,
    }
    c.data = {
        "domains": {"prose": "wheels:prose", "code": "wheels:code", "headers": "wheels:headers"},
        "tokenizer": "bytes",  # bytes | bpe:SIZE
        "sequence": 64,  # tokens predicted a window
        "batch": 16,  # windows a step
        "mixture": {"prose": 1.0},  # shares by domain, or phases ((start fraction, shares), ...)
        "unique_tokens": {},  # domain: limit in tokens
    }
    c.optimizer = {
        "name": "adamw",  # or another of scaling/optimizer.py
        "b1": optional(0.9),
        "b2": optional(0.95),
        "eps": optional(1e-8),
        "weight_decay": 0.1,
        "decay_convention": "coupled",  # coupled: lr x decay, as in optax | independent: lr / peak x decay
        "decay_on": "matrices",  # all | matrices: kernels of dense layers
        "clip_norm": optional(1.0),  # None: no clipping
    }
    c.schedule = {
        "name": "cosine",  # constant | cosine | infinite | inverse_sqrt | linear | one_cycle | power | table | wsd
        "peak": 4e-3,
        "warmup": {"steps": 30},
        "floor": 0.1,  # share of the peak
        "decay": {"steps": optional(None)},  # length of the final decay of wsd
    }
    c.training = {
        "duration": {"steps": 1000},  # steps | tokens | epochs
        "seed": 0,
        "dtype": "float32",
        "accumulation": 1,  # microbatches a step
        "z_loss": 0.0,
        "diverged_above": 20.0,  # nats/token
    }
    c.evaluation = {
        "points": optional(8),  # log-spaced steps
        "steps": optional(None),  # or these steps
        "windows": 64,  # held-out windows a domain
    }
    c.parent = None
    return c
