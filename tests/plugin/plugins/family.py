"""CaiT, whose blocks apply one drop path to both branches, so that they have linears only."""

from petl_bench.backbones.families import FAMILIES
from petl_bench.backbones.tables import Table

FAMILIES.register("Cait")(Table(branches={}, first_token=False))
